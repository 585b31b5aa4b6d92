"""What keeps the fuzzer at queues that are there, and these small."""

import schemathesis

# Made before the run; each takes another way through the broker.
QUEUES = ["plain", "fifo", "priorities"]
# Valid, but ten thousand partitions a request would test little more than the patience of who waits.
PARTITIONS = 4


@schemathesis.hook
def map_path_parameters(context, parameters):
    """Two of three requests are for a queue that is there, unless they delete it."""
    if parameters and "name" in parameters and not (
        context.operation.method.upper() == "DELETE" and context.operation.path == "/queues/{name}"
    ):
        chosen = sum(map(ord, str(parameters["name"]))) % (len(QUEUES) + 2)
        if chosen < len(QUEUES):
            parameters["name"] = QUEUES[chosen]
    return parameters


@schemathesis.hook
def map_body(context, body):
    """Bounds partitions, and the time that a receive waits."""
    if isinstance(body, dict):
        for name, most, valid in [("partitions", PARTITIONS, 10_000), ("wait_ms", 5, 20_000)]:
            value = body.get(name)
            if isinstance(value, int) and not isinstance(value, bool) and most < value <= valid:
                body[name] = most
    return body
