#!/usr/bin/env bash
# A broker on a free loopback port, for tests that kill and restart it.
#
# Sourced, it gives functions; executed as `compat/broker.sh kill|restart|stop`, it acts on the broker of BROKER_DIR, so that
# a client program in any language can crash the broker under its own feet.
#
#   broker_start DIR [flag…]   starts OTTLA on DIR/data; sets and exports BOOTSTRAP, BROKER_PID, BROKER_DIR
#   broker_kill                SIGKILL; returns when the process is gone
#   broker_restart             the same flags, data and port; ends a broker that still runs by SIGKILL first
#   broker_stop                SIGTERM; fails, after a SIGKILL, if that takes longer than BROKER_STOP_SECONDS
#
# DIR keeps all that a restart needs: pid, port, flags, log. Every wait has a deadline; a failure prints the end of the log.

BROKER_START_SECONDS=${BROKER_START_SECONDS:-30}
BROKER_STOP_SECONDS=${BROKER_STOP_SECONDS:-10}

broker_start() {
  export BROKER_DIR=$1
  mkdir -p "$BROKER_DIR/data"
  printf '%s\0' "${@:2}" >"$BROKER_DIR/flags"
  broker_launch "127.0.0.1:$(broker_free_port)"
}

# A port on which nothing listens, below those from which the system serves connecting clients: else a client that tries to
# reconnect while the broker is away may be given the broker's port, so that the broker cannot have it back.
broker_free_port() {
  local port
  while port=$((10000 + RANDOM % 20000)) && (: <>"/dev/tcp/127.0.0.1/$port") 2>/dev/null; do :; done
  echo "$port"
}

broker_restart() {
  broker_kill && broker_launch "$(<"$BROKER_DIR/address")"
}

broker_kill() {
  broker_signal KILL && broker_wait_gone "$BROKER_STOP_SECONDS"
}

broker_stop() {
  broker_signal TERM
  broker_wait_gone "$BROKER_STOP_SECONDS" || { broker_kill && return 1; }
}

# Starts the broker on the address given and waits for its ready file.
broker_launch() {
  local ready=$BROKER_DIR/ready deadline=$((SECONDS + BROKER_START_SECONDS)) flags=()
  # printf writes one empty flag when there are none.
  mapfile -d '' -t flags <"$BROKER_DIR/flags"
  [[ ${flags[*]} ]] || flags=()
  rm -f "$ready"
  # Its own session: Ctrl-C ends the suite first and the trap then ends the broker.
  setsid "${OTTLA:?path of the broker binary}" --listen "$1" --data "$BROKER_DIR/data" --ready-file "$ready" "${flags[@]}" \
    >>"$BROKER_DIR/log" 2>&1 </dev/null &
  BROKER_PID=$!
  disown "$BROKER_PID"
  echo "$BROKER_PID" >"$BROKER_DIR/pid"
  until [[ -s $ready ]]; do
    if ! broker_runs || ((SECONDS >= deadline)); then
      echo "the broker did not become ready; the end of $BROKER_DIR/log:" >&2
      tail -n 20 "$BROKER_DIR/log" >&2
      broker_kill
      return 1
    fi
    sleep 0.02
  done
  read -r BOOTSTRAP <"$ready"
  echo "$BOOTSTRAP" >"$BROKER_DIR/address"
  export BOOTSTRAP BROKER_PID
}

# The pid is read from its file: a program may have restarted the broker since this shell started it.
broker_signal() {
  [[ -s $BROKER_DIR/pid ]] && BROKER_PID=$(<"$BROKER_DIR/pid") && { kill "-$1" "$BROKER_PID" 2>/dev/null || true; }
}

# A zombie is gone: its parent is a shell that waits for something else.
broker_runs() {
  local state
  state=$(ps -o stat= -p "$BROKER_PID") && [[ $state != Z* ]]
}

broker_wait_gone() {
  local deadline=$((SECONDS + $1))
  while broker_runs; do
    ((SECONDS < deadline)) || return 1
    sleep 0.02
  done
}

if [[ ${BASH_SOURCE[0]} == "$0" ]]; then
  : "${BROKER_DIR:?set by compat/run}"
  case ${1:-} in
    kill | restart | stop) "broker_$1" ;;
    *)
      echo "usage: broker.sh kill|restart|stop" >&2
      exit 2
      ;;
  esac
fi
