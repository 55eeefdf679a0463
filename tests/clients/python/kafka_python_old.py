"""Consumes as the estimator of the original system did, with requests that the broker does not serve.

The broker must refuse them and log a warning, which the runner looks for.
"""

import sys

from kafka import KafkaConsumer

from features import main

BOOTSTRAP, PREFIX = sys.argv[1:]


def refused():
    consumer = KafkaConsumer(
        "stock.vehicle-created", bootstrap_servers=BOOTSTRAP, api_version=(0, 10, 2), group_id=PREFIX + "refused", client_id="refused"
    )
    records = consumer.poll(3000)
    if records:
        raise AssertionError(f"expected no records, got {records}")


main({"refused": refused})
