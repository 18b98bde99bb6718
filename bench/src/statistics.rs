//! Samples and what is said about them.

/// Measurements of one side, in the order in which they were taken.
#[derive(Clone, Debug, Default)]
pub struct Samples(Vec<f64>);

impl Samples {
    /// Adds one.
    pub fn push(&mut self, value: f64) {
        self.0.push(value);
    }

    /// As they were taken.
    pub fn values(&self) -> &[f64] {
        &self.0
    }

    /// The middle one; the mean of both where there are two.
    pub fn median(&self) -> f64 {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let middle = sorted.len() / 2;
        match sorted.len() {
            0 => f64::NAN,
            length if length % 2 == 1 => sorted[middle],
            _ => f64::midpoint(sorted[middle - 1], sorted[middle]),
        }
    }

    /// The smallest.
    pub fn minimum(&self) -> f64 {
        self.0.iter().copied().fold(f64::NAN, f64::min)
    }
}

/// Both sides of one row.
#[derive(Clone, Debug, Default)]
pub struct Figures {
    /// This project's.
    pub ours: Samples,
    /// The other's.
    pub peer: Samples,
}

impl Figures {
    /// How many times as much the peer takes: above 1, ours is better. All rows are costs.
    pub fn ratio(&self) -> f64 {
        self.peer.median() / self.ours.median()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn samples(values: &[f64]) -> Samples {
        Samples(values.to_vec())
    }

    #[test]
    fn the_median_of_an_even_number_is_between_the_middle_two() {
        assert_eq!(samples(&[4.0, 1.0, 3.0, 2.0]).median().to_bits(), 2.5_f64.to_bits());
        assert_eq!(samples(&[9.0, 1.0, 2.0]).median().to_bits(), 2.0_f64.to_bits());
        assert!(samples(&[]).median().is_nan());
    }

    #[test]
    fn a_ratio_above_one_is_in_our_favour() {
        let figures = Figures { ours: samples(&[10.0]), peer: samples(&[25.0]) };
        assert_eq!(figures.ratio().to_bits(), 2.5_f64.to_bits());
    }
}
