"""The page and the API: what a person sees in the browser, and what a program asks over HTTP."""
