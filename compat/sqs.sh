# An SQS endpoint for the suites of AWS SDKs, which is always ours and verifies signatures. Sourced, beside broker.sh, it builds
# OTTLA unless that is set, ends the broker with the shell, and gives all that an SDK takes from the environment.
#
#   sqs_start DIR   starts a broker on DIR/data; sets and exports AWS_ENDPOINT_URL_SQS, and what broker_start does

# shellcheck source=compat/broker.sh
. "$(dirname "${BASH_SOURCE[0]}")/broker.sh"

if [[ -z ${OTTLA:-} ]]; then
  compat=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
  cargo build --release --quiet --manifest-path "$compat/../Cargo.toml" >&2
  export OTTLA=$compat/../target/release/ottla
fi
BROKER=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)/broker.sh
export BROKER
trap 'exit 143' TERM
trap '[[ -z ${BROKER_DIR:-} ]] || broker_kill' EXIT

# Nothing of the user's or of the machine's own.
export AWS_ACCESS_KEY_ID=AKIDEXAMPLE AWS_SECRET_ACCESS_KEY='wJalrXUtnFEMI/K7MDENG+bPxRfiCYEXAMPLEKEY' AWS_REGION=us-east-1
export AWS_CONFIG_FILE=/dev/null AWS_SHARED_CREDENTIALS_FILE=/dev/null AWS_EC2_METADATA_DISABLED=true
unset AWS_PROFILE AWS_SESSION_TOKEN AWS_ENDPOINT_URL

sqs_start() {
  local address credentials=${WORK:?set by compat/run}/credentials
  address=127.0.0.1:$(broker_free_port)
  printf '[default]\naws_access_key_id = %s\naws_secret_access_key = %s\n' \
    "$AWS_ACCESS_KEY_ID" "$AWS_SECRET_ACCESS_KEY" >"$credentials"
  broker_start "$1" --sqs-listen "$address" --set "ottla.sqs.credentials.file=$credentials"
  export AWS_ENDPOINT_URL_SQS=http://$address
}
