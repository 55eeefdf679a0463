"""Parses the queries of the alert rules, the dashboard and the autoscaler, as Prometheus would before it loads them."""

import json
import pathlib
import sys

import promql_parser
import yaml

root = pathlib.Path(sys.argv[1])
rules = yaml.safe_load((root / "compose/prometheus/alerts.yml").read_text())
queries = [rule["expr"] for group in rules["groups"] for rule in group["rules"]]
durations = [rule["for"] for group in rules["groups"] for rule in group["rules"] if "for" in rule]
for dashboard in (root / "compose/grafana/dashboards").glob("*.json"):
    panels = json.loads(dashboard.read_text())["panels"]
    queries += [target["expr"] for panel in panels for target in panel["targets"]]
scaler = yaml.safe_load((root / "compose/kubernetes/autoscaling/estimate.yaml").read_text())
queries += [trigger["metadata"]["query"] for trigger in scaler["spec"]["triggers"]]
for query in queries:
    try:
        # Grafana puts the length of the interval in place of its variable.
        promql_parser.parse(query.replace("$__rate_interval", "1m"))
    except ValueError as error:
        sys.exit(f"{query}: {error}")
for duration in durations:
    promql_parser.parse_duration(duration)
assert len(queries) > 20, len(queries)
print(len(queries), "queries of alerts, panels and the autoscaler")
