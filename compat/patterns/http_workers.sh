#!/usr/bin/env bash
# Workers in nothing but curl: competing, acknowledging one or many, waiting for messages without asking again and again.
#
# What one takes and does not acknowledge comes again, to another; a crash of the broker changes nothing of that.
set -euo pipefail
queues=${HTTP:-http://127.0.0.1:9464}/queues

post() { # post PATH JSON
  curl --silent --show-error --fail-with-body "$queues$1" --data "$2"
}

# Members of flat JSON, one a line; a program would have a parser.
member() { # member NAME
  grep -o "\"$1\":\"[^\"]*\"" | cut -d '"' -f 4
}

# Takes one task at a time until there is none, and writes down what it has done.
work() { # work FILE
  local got receipt
  while got=$(post /tasks/receive '{"wait_ms": 1000}') && receipt=$(member receipt <<<"$got"); do
    member body <<<"$got" >>"$1"
    curl --silent --show-error --fail-with-body -X DELETE "$queues/tasks/messages/$receipt"
  done
}

expect() { # expect WHAT WANTED GOT
  [[ $2 == "$3" ]] || { echo "$1: $3 instead of $2" && exit 1; }
}

post '' '{"name": "tasks", "settings": {"visibility.timeout.ms": 2000}}' >/dev/null
messages=$(printf '{"body": "task %s"},' $(seq 1 30))
expect 'messages stored' 30 "$(post /tasks/messages "{\"messages\": [${messages%,}]}" | grep -o message_id | wc -l)"

# One that takes three and is gone; three together that are done; and the broker.
post /tasks/receive '{"max": 3}' | member body >lost
got=$(post /tasks/receive '{"max": 3}')
member body <<<"$got" >done.batch
receipts=$(member receipt <<<"$got" | sed 's/.*/{"receipt": "&", "action": "acknowledge"}/' | paste -sd ,)
expect 'acknowledged together' 3 "$(post /tasks/settle "{\"receipts\": [$receipts]}" | grep -o '"settled":true' | wc -l)"
"$BROKER" restart

for worker in 1 2 3; do work "done.$worker" & done
wait
# Those that were lost may have come when the last worker had gone home.
sleep 1
work done.late
touch done.1 done.2 done.3 done.late
sort -u -k 2n done.* >all
expect 'tasks done' 30 "$(wc -l <all)"
expect 'tasks done once' 30 "$(cat done.* | wc -l)"
expect 'lost ones among them' 3 "$(grep -cxFf lost all)"

# Who waits is woken by a message, not by its time.
SECONDS=0
post /tasks/receive '{"wait_ms": 20000}' >woken &
sleep 0.5
post /tasks/messages '{"body": "wake up"}' >/dev/null
wait
expect 'the message waited for' 'wake up' "$(member body <woken)"
((SECONDS < 10)) || { echo "it waited $SECONDS s" && exit 1; }
