#!/bin/bash
# One broker of the image apache/kafka, on broker.properties: its folder is formatted once. Users are made later, over the
# internal listener: here their passwords would be arguments.
set -euo pipefail
/opt/kafka/bin/kafka-storage.sh format --cluster-id "$KAFKA_CLUSTER_ID" --config "$1" --ignore-formatted
exec /opt/kafka/bin/kafka-server-start.sh "$1"
