#!/usr/bin/env bash
# Example data, the whole road, a live endpoint, predictions, a clean stop:
#   bash quickstart.sh FOLDER      (raymill and python on the PATH)
set -euo pipefail
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
mkdir -p "${1:-quickstart}" && cd "${1:-quickstart}"
export RAYMILL_HOME="$PWD/.raymill"

say() { printf '\n\033[1m$ %s\033[0m\n' "$*"; "$@"; }
stop() {
  status=$?
  trap - EXIT INT TERM
  raymill serve stop fraud >/dev/null 2>&1 || true
  exit "$status"
}
trap stop EXIT
trap 'exit 130' INT TERM

cp "$here/raymill.yaml" "$here/make_data.py" .
say python make_data.py
say raymill run raymill.yaml
say raymill models
say raymill serve fraud --detach
say raymill predict fraud --input new.jsonl --output answers.jsonl
head -n 5 answers.jsonl
say raymill serve stop fraud
printf '\nthe quickstart is done; all of it lies in %s\n' "$PWD"
