//! The errors of a pricing model.

/// The reason why a model returned no price, distinguished by whether a retry can succeed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum EstimateError {
    /// The model cannot work now. The estimate is retried with growing pauses.
    #[error("{0}")]
    Retry(String),
    /// The model can never price this vehicle. The event is sent to the dead-letter topic with this reason.
    #[error("{0}")]
    Reject(String),
}
