//! The contract of an ad store.

use super::*;

pub async fn are_read_back_as_they_were_written(store: &dyn AdStore) {
    let ad = Ad::publish(Uuid::now_v7(), offer("ünïcode ✓"));
    assert_eq!(store.insert(std::slice::from_ref(&ad)).await, [Insertion::Kept]);
    assert_eq!(store.get(ad.id).await.unwrap(), Some(ad));
    assert_eq!(store.get(Ad::publish(Uuid::now_v7(), offer("other")).id).await.unwrap(), None);
    let of_the_original = Offer { vehicle_id: None, ..offer("original") };
    let ad = Ad::publish(Uuid::now_v7(), of_the_original);
    assert_eq!(store.insert(std::slice::from_ref(&ad)).await, [Insertion::Kept]);
    assert_eq!(store.get(ad.id).await.unwrap(), Some(ad));
}

pub async fn only_the_first_ad_of_a_vin_is_stored(store: &dyn AdStore) {
    let first = Ad::publish(Uuid::now_v7(), offer("once"));
    let again = Ad::publish(Uuid::now_v7(), Offer { price: Price::from_cents(1), ..offer("once") });
    let other = Ad::publish(Uuid::now_v7(), offer("other"));
    assert_eq!(store.insert(std::slice::from_ref(&first)).await, [Insertion::Kept]);
    let (known, kept) = (Insertion::Known, Insertion::Kept);
    assert_eq!(store.insert(&[again.clone(), other.clone(), again]).await, [known.clone(), kept, known]);
    let all = store.page(&PageRequest::new(10, None)).await.unwrap().rows;
    assert_eq!(all, [Ok(first), Ok(other)]);
    assert_eq!(store.insert(&[]).await, []);
}

pub async fn pages_start_with_the_oldest(store: &dyn AdStore) {
    let expected: Vec<_> =
        (0..5).map(|number| Ad::publish(Uuid::now_v7(), offer(&format!("page-{number}")))).collect();
    assert_eq!(store.insert(&expected).await, vec![Insertion::Kept; 5]);
    let after = Some(expected[2].id.to_string());
    let expected: Vec<_> = expected.into_iter().map(Ok).collect();
    let first = store.page(&PageRequest::new(2, None)).await.unwrap();
    assert_eq!((&first.rows[..], first.more), (&expected[..2], true));
    let last = store.page(&PageRequest::new(2, after)).await.unwrap();
    assert_eq!((&last.rows[..], last.more), (&expected[3..], false));
}

pub async fn the_newest_is_found_by_its_id(store: &dyn AdStore) {
    assert_eq!(store.newest().await.unwrap(), None);
    let ads = ["first", "last"].map(|vin| Ad::publish(Uuid::now_v7(), offer(vin)));
    store.insert(&ads).await;
    assert_eq!(store.newest().await.unwrap(), Some(ads[1].id));
}

/// Ads of other producers can be large, and a page of a thousand must not exhaust the memory.
pub async fn a_page_ends_at_a_size(store: &dyn AdStore) {
    let mut ads: Vec<_> =
        (0..5).map(|number| Ad::publish(Uuid::now_v7(), offer(&format!("large-{number}")))).collect();
    for ad in &mut ads[1..4] {
        ad.offer.vehicle.model = "m".repeat(MAX_PAGE_BYTES * 3 / 4);
    }
    assert_eq!(store.insert(&ads).await, vec![Insertion::Kept; 5]);
    let (mut pages, mut after) = (Vec::new(), None);
    loop {
        let page = store.page(&PageRequest::new(1_000, after)).await.unwrap();
        let found: Vec<_> = page.rows.into_iter().map(Result::unwrap).collect();
        after = found.last().map(|ad| ad.id.to_string());
        pages.push(found.len());
        assert_eq!(found, ads.drain(..found.len()).collect::<Vec<_>>());
        if !page.more {
            break;
        }
    }
    assert_eq!(pages, [3, 2]);
}

pub async fn are_stored_once_when_written_concurrently(store: &dyn AdStore) {
    let batches = [(); 4].map(|()| ["a", "b", "c"].map(|vin| Ad::publish(Uuid::now_v7(), offer(vin))));
    let insertions = futures::future::join_all(batches.iter().map(|batch| store.insert(batch))).await;
    assert_eq!(insertions.concat().iter().filter(|kept| **kept == Insertion::Kept).count(), 3);
}

pub async fn are_found_by_their_vin(store: &dyn AdStore) {
    let ads = ["a", "b", "c"].map(|vin| Ad::publish(Uuid::now_v7(), offer(vin)));
    assert_eq!(store.insert(&ads).await, vec![Insertion::Kept; 3]);
    let of =
        |vin: &str, after| PageRequest { vin: Some(Vin::parse(vin).unwrap()), ..PageRequest::new(10, after) };
    assert_eq!(store.page(&of("b", None)).await.unwrap().rows, [Ok(ads[1].clone())]);
    assert_eq!(store.page(&of("b", Some(ads[0].id.to_string()))).await.unwrap().rows, [Ok(ads[1].clone())]);
    assert_eq!(store.page(&of("b", Some(ads[1].id.to_string()))).await.unwrap().rows, []);
    assert_eq!(store.page(&of("other", None)).await.unwrap().rows, []);
}
