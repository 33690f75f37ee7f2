"""LitServe with two workers."""

import sys

import litserve

from benchmarks.peers.network import NAMES, load, probabilities


class Api(litserve.LitAPI):
    def setup(self, device: str) -> None:
        self.network = load()

    def decode_request(self, request: litserve.Request) -> list[list[float]]:
        return [[float(row[name]) for name in NAMES] for row in request["rows"]]

    def predict(self, rows: list[list[float]]) -> list[float]:
        return probabilities(self.network, rows)

    def encode_response(self, output: list[float]) -> dict[str, list[float]]:
        return {"predictions": output}


def main(port: int) -> None:
    server = litserve.LitServer(Api(), accelerator="cpu", workers_per_device=2)
    server.run(host="127.0.0.1", port=port, log_level="error", access_log=False,
               generate_client_file=False)


if __name__ == "__main__":
    main(int(sys.argv[1]))
