"""The verbs of the command line, by who needs them; one function each, without logic of its own."""
