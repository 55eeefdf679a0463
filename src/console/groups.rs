//! Looks at the consumer groups of the platform.

use std::sync::Arc;
use std::time::Duration;

use anyhow::Context as _;

use super::state::Console;
use crate::ads;
use crate::estimate;
use crate::event::{VEHICLE_CREATED, VEHICLE_PROCESSED};
use crate::kafka::{GroupObserver, GroupView, KafkaArgs, Naming};

const INTERVAL: Duration = Duration::from_secs(2);

/// The groups of the estimators and of ads.
pub struct Groups {
    console: Arc<Console>,
    estimators: Arc<GroupObserver>,
    advertisers: Arc<GroupObserver>,
}

impl Groups {
    /// # Errors
    /// Fails when librdkafka refuses the settings.
    pub fn new(kafka: &KafkaArgs, console: Arc<Console>) -> anyhow::Result<Self> {
        let naming = Naming::new(kafka);
        let observer = |group, event| {
            let observer = GroupObserver::new(kafka, &naming.group(group), &naming.topic(event));
            observer.map(Arc::new)
        };
        Ok(Self {
            console,
            estimators: observer(estimate::GROUP, VEHICLE_CREATED)?,
            advertisers: observer(ads::GROUP, VEHICLE_PROCESSED)?,
        })
    }

    /// Looks at the groups until the future is dropped.
    pub async fn watch(&self) {
        loop {
            let estimators = look(&self.estimators).await;
            let advertisers = look(&self.advertisers).await;
            self.record(estimators, advertisers);
            tokio::time::sleep(INTERVAL).await;
        }
    }

    fn record(&self, estimators: anyhow::Result<GroupView>, advertisers: anyhow::Result<GroupView>) {
        let mut state = self.console.lock();
        let error = estimators.as_ref().err().or(advertisers.as_ref().err());
        state.kafka_error = error.map(ToString::to_string);
        if let Ok(view) = &estimators {
            state.flight.committed(&view.committed);
            state.passed.estimated.clone_from(&view.committed);
            state.tails.entry(VEHICLE_CREATED).or_default().committed(&view.committed);
        }
        if let Ok(view) = &advertisers {
            state.passed.advertised.clone_from(&view.committed);
            state.tails.entry(VEHICLE_PROCESSED).or_default().committed(&view.committed);
        }
        state.estimators = estimators.ok();
        state.advertisers = advertisers.ok();
    }
}

async fn look(observer: &Arc<GroupObserver>) -> anyhow::Result<GroupView> {
    let observer = Arc::clone(observer);
    let looked = tokio::task::spawn_blocking(move || observer.look()).await;
    let mut view = looked.context("looking at a group panicked").flatten()?;
    forget_other_logs(&mut view);
    Ok(view)
}

/// Removes the offsets that the group committed in a log that is no longer there: they may outlive it.
fn forget_other_logs(view: &mut GroupView) {
    let GroupView { committed, bounds, .. } = view;
    committed.retain(|partition, next| bounds.get(partition).is_some_and(|(_, end)| *next <= *end));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn committed_offsets_beyond_the_end_of_the_log_do_not_count() {
        let mut view = GroupView {
            committed: [(0, 500), (1, 3), (2, 7)].into(),
            bounds: [(0, (0, 2)), (1, (0, 3))].into(),
            ..GroupView::default()
        };
        forget_other_logs(&mut view);
        assert_eq!(view.committed, [(1, 3)].into());
    }
}
