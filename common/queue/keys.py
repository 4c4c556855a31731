"""The names of all keys in Redis. Persisted: older and newer versions use them side by side during an upgrade.

Those that end in a colon are prefixes. Times are in milliseconds since 1970, by Redis's clock.
"""

# Hash: the task itself.
TASK = "match:task:"
# Sorted set of the open tasks, by when they were last enqueued.
OPEN = "match:open"
# Sorted set of the open tasks that a worker has begun, by when it did.
RUNNING = "match:running"
# Sorted set of the failed tasks, by when they failed.
FAILED = "match:failed"
# The last sequence number.
SEQ = "match:seq"
# Hash of how many tasks ended in each way, `state:code`, for ever.
ENDED = "match:ended"
# Channel on which the id of each closed task is published.
CLOSED_CHANNEL = "match:closed"
# By host, a sorted set of the tasks that hold a slot of it, by the time until which they hold it.
SLOTS = "match:fetching:"
# By `<queue>:<host>`, a sorted set of the tasks that wait for a slot, by sequence number.
WAITING = "match:parked:"
# Set of the hosts that tasks wait for.
WAITING_HOSTS = "match:crowded"
# By name, a lease.
LEASE = "match:lease:"
# Sorted set of the workers, by their last heartbeat.
WORKERS = "match:workers"
# Prefix of the counts of requests; the rest of the name is flask-limiter's.
RATES = "match:rates"

# By id, an upload's bytes; they expire unless they were kept.
UPLOAD = "match:upload:"
# How many bytes of uploads are held.
UPLOAD_BYTES = "match:upload-bytes"
# Sorted set of `<id>:<size>` of the uploads that expire, by when they do: what Redis has expired is subtracted by this.
UPLOAD_ENDS = "match:upload-ends"

# Sorted set of the URLs for which callbacks wait, by when the next delivery is due.
CALLBACK_DUE = "match:callbacks:due"
# By URL, a list of the ended tasks that wait, the oldest first; the delivery under way is its head.
CALLBACK_ENDS = "match:callbacks:ends:"
# By URL, a hash of the delivery under way: its id, number of entries, attempts, and failures since the last success.
CALLBACK_DELIVERY = "match:callbacks:delivery:"
# Hash of how many bytes wait for each receiver (host and port) and, under an empty name, in all.
CALLBACK_BYTES = "match:callbacks:bytes"
# By receiver, a hash of one that did not respond: how often, and until when no delivery begins.
CALLBACK_RECEIVER = "match:callbacks:receiver:"
# By receiver, a sorted set of the URLs that a delivery is being sent to, by when that ends at the latest.
CALLBACK_SLOTS = "match:callbacks:at:"
# By receiver, a sorted set of the URLs that wait for a slot, by when they began to.
CALLBACK_WAITING = "match:callbacks:parked:"
# Sorted set of the URLs for which callbacks wait, by when the oldest of their tasks ended.
CALLBACK_OLDEST = "match:callbacks:oldest"
# Hash of how many callbacks wait, under `pending`, and how many ended in each other state.
CALLBACK_COUNTS = "match:callbacks:counts"

# kombu's own: the messages that workers hold, and the sorted set by which they are restored.
UNACKED = "unacked"
UNACKED_INDEX = "unacked_index"

# What scripts call them.
IN_SCRIPTS = {
    "task_prefix": TASK,
    "open_key": OPEN,
    "running_key": RUNNING,
    "failed_key": FAILED,
    "seq_key": SEQ,
    "ended_key": ENDED,
    "closed_channel": CLOSED_CHANNEL,
    "slots_prefix": SLOTS,
    "waiting_prefix": WAITING,
    "waiting_hosts_key": WAITING_HOSTS,
    "workers_key": WORKERS,
    "upload_prefix": UPLOAD,
    "upload_bytes_key": UPLOAD_BYTES,
    "upload_ends_key": UPLOAD_ENDS,
    "callback_due_key": CALLBACK_DUE,
    "callback_ends_prefix": CALLBACK_ENDS,
    "callback_delivery_prefix": CALLBACK_DELIVERY,
    "callback_bytes_key": CALLBACK_BYTES,
    "callback_receiver_prefix": CALLBACK_RECEIVER,
    "callback_slots_prefix": CALLBACK_SLOTS,
    "callback_waiting_prefix": CALLBACK_WAITING,
    "callback_oldest_key": CALLBACK_OLDEST,
    "callback_counts_key": CALLBACK_COUNTS,
}
