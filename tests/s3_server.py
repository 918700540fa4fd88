"""An S3 server on the loopback (moto), that can be made slow and made to fail."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

BUCKET = "distprune"

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "testing",
    "AWS_DEFAULT_REGION": "us-east-1",
    "AWS_EC2_METADATA_DISABLED": "true",
    "AWS_MAX_ATTEMPTS": "1",  # of botocore, which waits for long; distprune tries again itself
    "AWS_CONFIG_FILE": "/dev/null",
    "AWS_SHARED_CREDENTIALS_FILE": "/dev/null",
}

Application = Callable[[dict[str, Any], Callable[..., Any]], Iterable[bytes]]


@dataclass
class S3Server:
    """The server and what is wrong with it.

    Attributes:
        url: Its address.
        delay_s: Seconds by which every answer is late.
        failures: Requests that are not carried out from now on, and answered with 503.
        lost_answers: Requests that are carried out from now on, and answered with 500 all the same.
        methods: Requests that `failures` and `lost_answers` are about.
        calls: Method and path of all requests.
    """

    url: str = ""
    delay_s: float = 0.0
    failures: int = 0
    lost_answers: int = 0
    methods: tuple[str, ...] = ("GET", "PUT", "POST", "HEAD", "DELETE")
    calls: list[str] = field(default_factory=list)
    _lock: threading.Lock = field(default_factory=threading.Lock)

    @property
    def environment(self) -> dict[str, str]:
        """The variables that a process needs to use it."""
        return {**ENVIRONMENT, "AWS_ENDPOINT_URL": self.url}

    def mend(self) -> None:
        """Be fast and right again."""
        self.delay_s, self.failures, self.lost_answers = 0.0, 0, 0
        self.methods = S3Server.methods
        self.calls.clear()

    def wrap(self, application: Application) -> Application:
        """Return the application with what is wrong."""

        def serve(environ: dict[str, Any], start_response: Callable[..., Any]) -> Iterable[bytes]:
            method = str(environ["REQUEST_METHOD"])
            with self._lock:
                self.calls.append(f"{method} {environ['PATH_INFO']}")
                is_meant = method in self.methods
                fails = is_meant and self.failures > 0
                loses = is_meant and not fails and self.lost_answers > 0
                self.failures -= fails
                self.lost_answers -= loses
            time.sleep(self.delay_s)
            if fails:
                environ["wsgi.input"].read(int(environ.get("CONTENT_LENGTH") or 0))
                return answer_error("503 Service Unavailable", "SlowDown", start_response)
            if loses:
                list(application(environ, lambda *arguments: lambda data: None))
                return answer_error("500 Internal Server Error", "InternalError", start_response)
            return application(environ, start_response)

        return serve


def answer_error(status: str, code: str, start_response: Callable[..., Any]) -> list[bytes]:
    """Answer as S3 does to a request that fails."""
    body = f"<Error><Code>{code}</Code><Message>Please try again</Message></Error>".encode()
    headers = [("Content-Type", "application/xml"), ("Content-Length", str(len(body)))]
    start_response(status, headers)
    return [body]


@contextmanager
def serve_s3() -> Iterator[S3Server]:
    """Serve S3 with an empty bucket inside the block."""
    from moto.server import DomainDispatcherApplication, create_backend_app
    from werkzeug.serving import make_server

    state = S3Server()
    application = state.wrap(DomainDispatcherApplication(create_backend_app))
    server = make_server("127.0.0.1", 0, application, threaded=True)
    state.url = f"http://127.0.0.1:{server.server_port}"
    thread = threading.Thread(target=server.serve_forever, daemon=True)
    thread.start()
    try:
        make_bucket(state.url)
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


def make_bucket(url: str) -> None:
    """Make the bucket."""
    import botocore.session

    client = botocore.session.get_session().create_client(
        "s3",
        endpoint_url=url,
        region_name="us-east-1",
        aws_access_key_id="testing",
        aws_secret_access_key="testing",
    )
    client.create_bucket(Bucket=BUCKET)
    client.close()
