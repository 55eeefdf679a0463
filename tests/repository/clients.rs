//! Checks that the table of clients has a place in the README of the broker.

#[test]
fn the_readme_of_the_broker_has_a_place_for_the_table_of_clients() {
    let readme = include_str!("../../crates/kafka-broker/README.md");
    for marker in ["<!-- clients: begin -->", "<!-- clients: end -->"] {
        assert_eq!(readme.matches(marker).count(), 1, "{marker}");
    }
}
