#!/usr/bin/env bash
# Runs schemathesis over the OpenAPI document against running servers: without sign-in, and with sign-in and a token.
# Fails on an answer that is a 5xx of ours or that the document does not describe; what always answers 501 is left out. EXAMPLES sets the depth (default 50).
set -euo pipefail
cd "$(dirname "$0")/.."

target=${CARGO_TARGET_DIR:-target}
work=$target/fuzz-api
examples=${EXAMPLES:-50}
rm -rf "$work/run"
mkdir -p "$work/run"

# Pinned: another version generates other requests and checks.
if [[ ! -x $work/venv/bin/schemathesis ]]; then
    python3 -m venv "$work/venv"
    "$work/venv/bin/pip" install --quiet schemathesis==4.32.5
fi
cargo build --quiet --workspace --bins

server=
stop() { [[ -z $server ]] || kill "$server" 2>/dev/null || true; }
trap stop EXIT

# start NAME PORT [VARIABLE=value ...]
start() {
    local name=$1 port=$2
    shift 2
    env "$@" PERSES_EPHEMERAL_DASHBOARD_ENABLE=true PERSES_DATABASE_FILE_FOLDER="$work/run/$name" PERSES_AUDIT_LOG=false \
        "$target/debug/perses-api-server" --web.listen-address="127.0.0.1:$port" >"$work/run/$name.log" 2>&1 &
    server=$!
    for _ in $(seq 100); do
        curl --silent --fail --output /dev/null "http://127.0.0.1:$port/readyz" && return
        sleep 0.1
    done
    cat "$work/run/$name.log"
    exit 1
}

# fuzz PORT [OPTION ...]
fuzz() {
    local port=$1
    shift
    "$work/venv/bin/schemathesis" run "http://127.0.0.1:$port/api/v1/openapi.json" \
        --checks not_a_server_error,status_code_conformance,content_type_conformance,response_schema_conformance \
        --phases examples,coverage,fuzzing --max-examples "$examples" --continue-on-failure --no-color --warnings off \
        --request-timeout 30 --exclude-path-regex '^/api/(migrate|v1/plugins/dev)' "$@"
    # Nothing a client sends ends the process.
    kill -0 "$server"
}

start open 18471
fuzz 18471
stop
wait "$server" || true

printf admin >"$work/run/user"
printf secret >"$work/run/password"
head -c 32 /dev/urandom >"$work/run/key"
start signed-in 18472 PERSES_SECURITY_ENABLE_AUTH=true PERSES_SECURITY_ENCRYPTION_KEY_FILE="$work/run/key" \
    PERSES_SECURITY_AUTHENTICATION_PROVIDERS_ENABLE_NATIVE=true \
    PERSES_SECURITY_AUTHENTICATION_INITIAL_ADMIN_USERNAME_FILE="$work/run/user" \
    PERSES_SECURITY_AUTHENTICATION_INITIAL_ADMIN_PASSWORD_FILE="$work/run/password"
login() {
    curl --silent --fail -H 'Content-Type: application/json' -d '{"login": "admin", "password": "secret"}' \
        http://127.0.0.1:18472/api/auth/providers/native/login
}
for _ in $(seq 100); do
    answer=$(login) && break
    sleep 0.1
done
token=$(python3 -c 'import json, sys; print(json.load(sys.stdin)["access_token"])' <<<"$answer")
# The account itself is left alone, so that the token goes on counting.
fuzz 18472 --header "Authorization: Bearer $token" --exclude-path '/api/v1/users/{name}'
