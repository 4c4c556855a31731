"""The names of all keys in Redis. They never change: during an upgrade, older and newer versions use the same keys.

A name that ends in a colon is a prefix. Times are in milliseconds since 1970, by Redis's clock.
"""

# Hash: the task itself.
TASK = "match:task:"
# Sorted set of the open tasks, by the time at which they were last enqueued.
OPEN = "match:open"
# Hash of the number of open tasks by collection.
OPEN_BY_COLLECTION = "match:open-by-collection"
# Hash of the batch queue of each collection with open tasks of batches.
BATCH_QUEUE_OF = "match:batch-queue-of"
# Sorted set of the deleted collections, by the sequence number of the deletion.
DELETED_COLLECTIONS = "match:deleted-collections"
# By id, a hash of a batch: its counters, times and owner (`lua/batch_counts.lua`).
BATCH = "match:batch:"
# By collection, a sorted set of its batches, by the time at which they were accepted.
BATCHES = "match:batches:of:"
# Sorted set of `<collection> <batch>` by the time at which the batch's hash expires; infinite while it has open tasks.
BATCH_ENDS = "match:batches:ends"
# Sorted set of `<batch> <request>` of the requests that add to a batch, by the time at which their lease expires.
BATCH_REQUESTS = "match:batches:requests"
# Sorted set of the collections with deletions of selected images, by the sequence number of the last deletion.
DELETED_IMAGES = "match:deleted-images"
# By collection, a sorted set of its deletions of selected images, as JSON, by the sequence number of the deletion.
DELETED_IMAGES_OF = "match:deleted-images:of:"
# Sorted set of the running tasks, by the time at which a worker began them.
RUNNING = "match:running"
# Sorted set of the failed tasks, by the time of the failure.
FAILED = "match:failed"
# By state, a sorted set of minutes; by `<state>:<minute>`, a list of the tasks that ended in that minute, not failed.
ENDED_TASKS = "match:ended-tasks:"
# The last sequence number.
SEQ = "match:seq"
# Hash of the number of ended tasks by `state:code`, since Redis was empty.
ENDED = "match:ended"
# Channel on which the id of each closed task is published.
CLOSED_CHANNEL = "match:closed"
# By host, a sorted set of the tasks that hold a slot, by the time at which the slot expires.
SLOTS = "match:fetching:"
# By `<queue>:<host>`, a sorted set of the tasks that wait for a slot, by sequence number.
WAITING = "match:parked:"
# Set of the hosts with waiting tasks.
WAITING_HOSTS = "match:crowded"
# Sorted set of the deferred tasks, which wait for their host without a message, by the time of their next try; infinite
# for those that wait for a slot.
DEFERRED = "match:deferred"
# Hash of the number of deferred tasks by host.
DEFERRED_BY_HOST = "match:deferred-by-host"
# By host, a hash of its faults and the limits that adapt to them.
HOST = "match:host:"
# Sorted set of the hosts with waiting tasks, by the time at which one of these may begin.
HOSTS_DUE = "match:hosts-due"
# By name, a lease.
LEASE = "match:lease:"
# Sorted set of the workers, by their last heartbeat.
WORKERS = "match:workers"
# The same for workers whose death others look for, until their work is restarted. Earlier versions send no heartbeat to
# it: their heartbeats are too rare.
WATCHED_WORKERS = "match:watched-workers"
# Exists while the queue is paused.
PAUSED = "match:paused"
# Prefix of the counters of rate limits; flask-limiter chooses the rest of the name.
RATES = "match:rates"

# By day since 1970 (UTC), a hash of the use of the service by `<key>|<collection>|<count>`.
USAGE = "match:usage:"
# By process of the API, the number of the last counts that it added.
USAGE_WRITER = "match:usage-writer:"

# By id, an upload's bytes; the key expires until `keep` persists it.
# A name that no key has.
UNUSED = "match:nothing"
UPLOAD = "match:upload:"
# Number of bytes of all uploads.
UPLOAD_BYTES = "match:upload-bytes"
# Sorted set of `<id>:<size>` of the uploads that expire, by the time of expiry. After Redis has deleted an upload, its
# size is subtracted from the sum.
UPLOAD_ENDS = "match:upload-ends"

# Sorted set of the URLs with waiting callbacks, by the time at which the next delivery is due.
CALLBACK_DUE = "match:callbacks:due"
# By URL, a list of the ended tasks to report, the oldest first; the current delivery is its head.
CALLBACK_ENDS = "match:callbacks:ends:"
# By URL, a hash of the current delivery: its id, number of entries, attempts, and failures since the last success.
CALLBACK_DELIVERY = "match:callbacks:delivery:"
# Hash of the bytes that wait for each receiver (host and port); the empty name has the sum.
CALLBACK_BYTES = "match:callbacks:bytes"
# By receiver that did not respond, a hash of the number of failures and the time until which deliveries pause.
CALLBACK_RECEIVER = "match:callbacks:receiver:"
# By receiver, a sorted set of the URLs with a running delivery, by the time at which its claim expires.
CALLBACK_SLOTS = "match:callbacks:at:"
# By receiver, a sorted set of the URLs that wait for a slot, by the time at which they began to wait.
CALLBACK_WAITING = "match:callbacks:parked:"
# Sorted set of the URLs with waiting callbacks, by the end of the oldest of their tasks.
CALLBACK_OLDEST = "match:callbacks:oldest"
# Hash of the number of callbacks by state: `pending` is the current number, the others are counters.
CALLBACK_COUNTS = "match:callbacks:counts"

# kombu's keys: the unacknowledged messages, and the sorted set by which they are restored.
UNACKED = "unacked"
UNACKED_INDEX = "unacked_index"

# The keys by their names in Lua scripts.
SCRIPT_KEYS = {
    "task_prefix": TASK,
    "open_key": OPEN,
    "open_by_collection_key": OPEN_BY_COLLECTION,
    "batch_queue_of_key": BATCH_QUEUE_OF,
    "deleted_collections_key": DELETED_COLLECTIONS,
    "deleted_images_key": DELETED_IMAGES,
    "deleted_images_prefix": DELETED_IMAGES_OF,
    "batch_prefix": BATCH,
    "batches_prefix": BATCHES,
    "batch_ends_key": BATCH_ENDS,
    "batch_requests_key": BATCH_REQUESTS,
    "running_key": RUNNING,
    "failed_key": FAILED,
    "seq_key": SEQ,
    "ended_key": ENDED,
    "ended_tasks_prefix": ENDED_TASKS,
    "closed_channel": CLOSED_CHANNEL,
    "slots_prefix": SLOTS,
    "waiting_prefix": WAITING,
    "waiting_hosts_key": WAITING_HOSTS,
    "deferred_key": DEFERRED,
    "deferred_by_host_key": DEFERRED_BY_HOST,
    "host_prefix": HOST,
    "hosts_due_key": HOSTS_DUE,
    "workers_key": WORKERS,
    "usage_prefix": USAGE,
    "usage_writer_prefix": USAGE_WRITER,
    "watched_workers_key": WATCHED_WORKERS,
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
    "unacked_key": UNACKED,
    "unacked_index_key": UNACKED_INDEX,
}
