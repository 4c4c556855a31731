"""From accepted requests to tasks in the queue, and what becomes of them."""
