//! Reads a histogram from metrics in the OpenMetrics format.

/// The cumulative counts of a histogram by their upper bounds, in ascending order.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Histogram {
    buckets: Vec<(f64, f64)>,
}

impl Histogram {
    /// Sums the buckets of all series with the `name` and these `labels`.
    pub fn read(text: &str, name: &str, labels: &[&str]) -> Self {
        let mut buckets: Vec<(f64, f64)> = Vec::new();
        for line in text.lines() {
            let Some((series, count)) = line
                .strip_prefix(name)
                .and_then(|rest| rest.strip_prefix('{'))
                .and_then(|rest| rest.rsplit_once("} "))
            else {
                continue;
            };
            if !labels.iter().all(|label| series.contains(label)) {
                continue;
            }
            let bound = series.split_once("le=\"").and_then(|(_, rest)| rest.split_once('"'));
            let bound = bound.and_then(|(bound, _)| match bound {
                "+Inf" => Some(f64::INFINITY),
                bound => bound.parse().ok(),
            });
            let count = count.split(' ').next().and_then(|count| count.parse::<f64>().ok());
            let Some((bound, count)) = bound.zip(count) else { continue };
            match buckets.iter_mut().find(|(known, _)| known.total_cmp(&bound).is_eq()) {
                Some((_, sum)) => *sum += count,
                None => buckets.push((bound, count)),
            }
        }
        buckets.sort_by(|one, other| one.0.total_cmp(&other.0));
        Self { buckets }
    }

    /// Returns a quantile of what was observed since `before`, interpolated within its bucket. Returns `None` when
    /// nothing was observed or the counts restarted.
    pub fn quantile_since(&self, before: &Self, quantile: f64) -> Option<f64> {
        let same_bounds = self.buckets.len() == before.buckets.len();
        let counts: Vec<_> = self
            .buckets
            .iter()
            .enumerate()
            .map(|(index, (bound, count))| {
                let earlier =
                    before.buckets.get(index).filter(|_| same_bounds).map_or(0.0, |(_, count)| *count);
                (*bound, count - earlier)
            })
            .collect();
        let (_, total) = counts.last().copied().filter(|(_, total)| *total > 0.0)?;
        let rank = total * quantile;
        let mut lower = (0.0, 0.0);
        for (bound, count) in counts {
            if count >= rank {
                if bound.is_infinite() {
                    return Some(lower.0);
                }
                let share = if count > lower.1 { (rank - lower.1) / (count - lower.1) } else { 1.0 };
                return Some(lower.0 + (bound - lower.0) * share);
            }
            lower = (bound, count);
        }
        None
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(counts: [u32; 3]) -> String {
        let [first, second, all] = counts;
        format!(
            "# TYPE t histogram\nt_sum{{a=\"1\"}} 5\n\
             t_bucket{{le=\"0.001\",a=\"1\",b=\"x\"}} {first}\nt_bucket{{le=\"0.002\",a=\"1\",b=\"x\"}} {second}\n\
             t_bucket{{le=\"+Inf\",a=\"1\",b=\"x\"}} {all}\nt_bucket{{le=\"+Inf\",a=\"2\",b=\"x\"}} 99\n"
        )
    }

    fn read(counts: [u32; 3]) -> Histogram {
        Histogram::read(&text(counts), "t_bucket", &["a=\"1\""])
    }

    #[test]
    fn a_quantile_is_interpolated_within_its_bucket() {
        let quantile = read([110, 210, 210]).quantile_since(&read([10, 10, 10]), 0.75).unwrap();
        assert!((quantile - 0.0015).abs() < 1e-9, "{quantile}");
        let beyond = read([0, 0, 5]).quantile_since(&Histogram::default(), 0.99).unwrap();
        assert!((beyond - 0.002).abs() < 1e-9, "{beyond}");
    }

    #[test]
    fn without_observations_there_is_no_quantile() {
        assert_eq!(read([5, 5, 5]).quantile_since(&read([5, 5, 5]), 0.99), None);
        assert_eq!(read([1, 1, 1]).quantile_since(&read([5, 5, 5]), 0.99), None);
        assert_eq!(
            Histogram::read("garbage\nt_bucket{\nt_bucket{le=\"x\"} 1", "t_bucket", &[]),
            Histogram::default()
        );
    }
}
