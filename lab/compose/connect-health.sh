#!/bin/bash
# Asks the REST API of this worker whether it is healthy. The login comes from a file, not from an argument.
set -euo pipefail
login=$(tr = : <logins.properties | tr -d '\n' | base64 | tr -d '\n')
exec 3<>"/dev/tcp/127.0.0.1/${CONNECT_LISTENERS##*:}"
printf 'GET /health HTTP/1.0\r\nAuthorization: Basic %s\r\n\r\n' "$login" >&3
IFS= read -r status <&3
[[ $status == *" 200 "* ]]
