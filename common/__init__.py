"""The core that API and workers share, without Flask and Celery."""
