"""The queue and the ledger of tasks, in Redis."""
