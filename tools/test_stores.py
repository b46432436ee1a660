"""Starts an emulator of Azure's object storage on a free port of loopback, makes a container, and
runs the suite on it."""

import base64
import email.utils
import hashlib
import hmac
import os
import pathlib
import socket
import subprocess
import sys
import tempfile
import time
import urllib.request

AT = pathlib.Path(sys.argv[1])
# Azurite's, the same everywhere and public.
ACCOUNT = "devstoreaccount1"
KEY = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
CONTAINER = "darkroom"


def free_port():
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


def ask(method, url, body=None, headers=None):
    with urllib.request.urlopen(urllib.request.Request(url, body, headers or {}, method=method), timeout=5) as answer:
        return answer.status


def azure(folder):
    port = free_port()
    command = ["node", AT / "azurite/node_modules/.bin/azurite-blob", "--silent", "--skipApiVersionCheck", "--location", folder, "--blobHost", "127.0.0.1", "--blobPort", port]
    address = f"http://127.0.0.1:{port}/{ACCOUNT}"

    def make_container():
        date = email.utils.formatdate(usegmt=True)
        signed = f"PUT\n\n\n\n\n\n\n\n\n\n\n\nx-ms-date:{date}\nx-ms-version:2021-08-06\n/{ACCOUNT}/{ACCOUNT}/{CONTAINER}\nrestype:container"
        signature = base64.b64encode(hmac.new(base64.b64decode(KEY), signed.encode(), hashlib.sha256).digest()).decode()
        ask("PUT", f"{address}/{CONTAINER}?restype=container", None, {"x-ms-date": date, "x-ms-version": "2021-08-06", "Authorization": f"SharedKey {ACCOUNT}:{signature}"})

    environment = {"AZURE_STORAGE_ACCOUNT_KEY": KEY, "DARKROOM_TEST_STORE": f"az://{CONTAINER}?account={ACCOUNT}&endpoint={address}&allow_http=true"}
    return command, make_container, environment


def run(name, server):
    print(f"## {name}", flush=True)
    with tempfile.TemporaryDirectory() as folder:
        command, make_container, environment = server(folder)
        process = subprocess.Popen([str(word) for word in command], stdin=subprocess.DEVNULL)
        try:
            deadline = time.monotonic() + 30
            while True:
                try:
                    make_container()
                    break
                except OSError:
                    if time.monotonic() > deadline or process.poll() is not None:
                        raise
                    time.sleep(0.1)
            tests = ["cargo", "nextest", "run", "--locked", "--no-fail-fast", "-p", "darkroom-artifacts", "--lib", *sys.argv[2:]]
            return subprocess.run(tests, env=os.environ | environment, check=False).returncode
        finally:
            # It keeps nothing that matters, and waits for connections that clients keep open.
            process.kill()
            process.wait()


if __name__ == "__main__":
    sys.exit(run("Azure's protocol (Azurite)", azure))
