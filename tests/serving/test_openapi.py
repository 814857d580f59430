"""Every operation of the OpenAPI, with whatever schemathesis thinks of: no answer may be a failure of the server."""

from __future__ import annotations

from typing import Any

import pytest
import schemathesis
from hypothesis import HealthCheck, Phase, given, settings

pytestmark = pytest.mark.filterwarnings("ignore")

_SETTINGS = settings(
    max_examples=8, deadline=None, phases=[Phase.generate], suppress_health_check=list(HealthCheck), database=None
)


@pytest.fixture(scope="module")
def schema(server: Any) -> Any:
    return schemathesis.openapi.from_url(f"{server.url}/openapi.json")


def test_nothing_fails_on_the_server(schema: Any) -> None:
    seen = set()
    for found in schema.get_all_operations():
        operation = found.ok()
        seen.add(f"{operation.method.upper()} {operation.path}")

        @_SETTINGS
        @given(case=operation.as_strategy())
        def ask(case: Any) -> None:
            response = case.call(timeout=30)
            assert response.status_code < 500, response.text
            if response.status_code >= 400:
                assert response.json()["error"]["message"]

        ask()
    assert {"POST /v1/predict", "GET /v1/models", "GET /healthz", "GET /metrics"} <= seen
    assert len(seen) >= 9
