"""Routing by the names of topics: queues bound by patterns get what is published to any topic that matches, new ones too.

The words of a name stand between dots: `*` is one of them, `#` any number.
"""

import os
import subprocess

import urllib3
from confluent_kafka import Producer
from confluent_kafka.admin import AdminClient, NewTopic

BOOTSTRAP = {"bootstrap.servers": os.environ.get("BOOTSTRAP", "127.0.0.1:9092")}
QUEUES = os.environ.get("HTTP", "http://127.0.0.1:9464") + "/queues"

admin = AdminClient(BOOTSTRAP)
http = urllib3.PoolManager()


def call(path, body):
    answer = http.request("POST", QUEUES + path, json=body)
    assert answer.status < 300, answer.data
    return answer.json()


def make_topics(*names):
    for made in admin.create_topics([NewTopic(name, 1) for name in names]).values():
        made.result()


def publish(*topics):
    """One event to each of them, which is its name."""
    producer = Producer(BOOTSTRAP)
    for topic in topics:
        producer.produce(topic, topic)
    assert producer.flush(10) == 0


def work_off(queue):
    """What is in it, in the order of names; it is acknowledged."""
    bodies = []
    while messages := call(f"/{queue}/receive", {"max": 100, "wait_ms": 500})["messages"]:
        bodies += [message["body"] for message in messages]
        verdicts = [{"receipt": message["receipt"], "action": "acknowledge"} for message in messages]
        assert all("settled" in result for result in call(f"/{queue}/settle", {"receipts": verdicts})["results"])
    return sorted(bodies)


make_topics("orders.eu.created", "orders.us.created", "orders.eu.cancelled", "users.created")
for queue, source in {
    "new-orders": "orders.*.created",
    "europe": "orders.eu.*",
    "all-orders": "orders.#",
    "both": "users.created, orders.*.cancelled",
}.items():
    call("", {"name": queue, "settings": {"source": source}})

publish("orders.eu.created", "orders.us.created", "orders.eu.cancelled", "users.created")
subprocess.run([os.environ["BROKER"], "restart"], check=True)
assert work_off("new-orders") == ["orders.eu.created", "orders.us.created"]
assert work_off("europe") == ["orders.eu.cancelled", "orders.eu.created"]
assert work_off("all-orders") == ["orders.eu.cancelled", "orders.eu.created", "orders.us.created"]
assert work_off("both") == ["orders.eu.cancelled", "users.created"]

# Topics that come later: one matches, one has a word too many for `*`.
make_topics("orders.jp.created", "orders.jp.tokyo.created")
publish("orders.jp.created", "orders.jp.tokyo.created")
assert work_off("new-orders") == ["orders.jp.created"]
assert work_off("all-orders") == ["orders.jp.created", "orders.jp.tokyo.created"]
assert work_off("europe") == work_off("both") == []

# Everything there is, also what is sent to a queue itself, which has a topic, too.
call("", {"name": "audit", "settings": {"source": "#"}})
call("/europe/messages", {"body": "to europe itself"})
assert len(work_off("audit")) == 7
assert work_off("europe") == ["to europe itself"]
