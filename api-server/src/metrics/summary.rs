//! A summary without quantiles, as upstream's client library makes them: sum and count.

use std::sync::Arc;

use parking_lot::Mutex;
use prometheus_client::encoding::{EncodeMetric, MetricEncoder, NoLabelSet};
use prometheus_client::metrics::{MetricType, TypedMetric};

/// Sum and number of observations.
#[derive(Debug, Clone, Default)]
pub struct Summary(Arc<Mutex<(f64, u64)>>);

impl Summary {
    /// Adds an observation.
    pub fn observe(&self, value: f64) {
        let mut state = self.0.lock();
        state.0 += value;
        state.1 += 1;
    }
}

impl EncodeMetric for Summary {
    fn encode(&self, mut encoder: MetricEncoder<'_>) -> Result<(), std::fmt::Error> {
        let (sum, count) = *self.0.lock();
        // A histogram without buckets has the lines of a summary.
        encoder.encode_histogram::<NoLabelSet>(sum, count, &[], None)
    }

    /// The library knows no summaries; [`typed`] puts the word in.
    fn metric_type(&self) -> MetricType {
        Self::TYPE
    }
}

impl TypedMetric for Summary {
    const TYPE: MetricType = MetricType::Unknown;
}

/// Writes the type of a summary into an exposition.
pub(super) fn typed(exposition: &str, name: &str) -> String {
    exposition.replacen(&format!("# TYPE {name} unknown\n"), &format!("# TYPE {name} summary\n"), 1)
}
