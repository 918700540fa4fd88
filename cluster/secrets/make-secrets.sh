#!/usr/bin/env bash
# Make the secrets of compose.yaml once, in the folder of this script: random, and never overwritten.
set -euo pipefail
cd "$(dirname "$0")"

# The folder is closed to other users of this machine. The files are not: Docker mounts each of
# them by itself, and the processes in the containers have other user numbers.
chmod 700 .
umask 022

random() {
  od -An -N32 -tx1 /dev/urandom | tr -d ' \n'
}

make_secret() {
  if [[ -e $1 ]]; then
    echo "$1 is there already"
  else
    printf '%s' "$2" >"$1"
    echo "$1 made"
  fi
}

make_secret ray_token "$(random)"
make_secret postgres_password "$(random)"
make_secret s3_user distprune
make_secret s3_password "$(random)"
make_secret aws_credentials "$(
  printf '[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n' \
    "$(cat s3_user)" "$(cat s3_password)"
)"
