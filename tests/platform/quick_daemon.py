"""Dagster's own daemon, looking at backfills every second instead of twice a minute, and at sensors as often."""

from dagster._daemon import controller, sensor
from dagster._daemon.cli import main

controller.DEFAULT_DAEMON_INTERVAL_SECONDS = 1
sensor.MIN_INTERVAL_LOOP_TIME = 1

if __name__ == "__main__":
    main()
