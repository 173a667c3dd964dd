"""Run a command beside a Ray of two places and an S3 server on this machine, which end with it.

The environment leads the command to both: $RAY_ADDRESS, $AWS_ENDPOINT_URL and the bucket `demo`.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import urllib.request

ENVIRONMENT = {
    "AWS_ACCESS_KEY_ID": "testing",
    "AWS_SECRET_ACCESS_KEY": "not-a-secret-of-anybody",
    "RAY_USAGE_STATS_ENABLED": "0",
    "RAY_worker_niceness": "0",
}


def main(command: list[str]) -> int:
    import ray
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer("127.0.0.1", port=0, verbose=False)
    logging.getLogger("werkzeug").setLevel(logging.ERROR)
    logging.getLogger("ray").setLevel(logging.ERROR)
    server.start()
    host, port = server.get_host_and_port()
    address = f"http://{host}:{port}"
    urllib.request.urlopen(urllib.request.Request(f"{address}/demo", method="PUT")).close()
    # Ray's workers have the environment in which it starts.
    os.environ.update(ENVIRONMENT, AWS_ENDPOINT_URL=address)
    options = {"include_dashboard": False, "log_to_driver": False, "configure_logging": False}
    context = ray.init("local", num_cpus=2, **options)
    os.environ["RAY_ADDRESS"] = context.address_info["gcs_address"]
    try:
        return subprocess.run(command).returncode
    finally:
        ray.shutdown()
        server.stop()


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
