//! Draws the vehicles of a load, and recognizes them by their VINs.

use rand::rngs::StdRng;
use rand::seq::IndexedRandom as _;
use rand::{RngExt as _, SeedableRng as _};

use super::catalogue::CATALOGUE;
use super::vin::{CHARACTERS, DIGITS, LETTERS, VinParts, nth};
use crate::vehicle::PlainVehicle;

/// The number of different serial numbers of a run: five digits, a character before them, and the plant.
const SERIALS: u64 = 33 * 33 * 100_000;
/// The year in which the vehicles are sold.
const SOLD: i32 = 2026;

/// The vehicles of one run, numbered from 0.
///
/// The seed determines manufacturers, models, years and odometers. The run determines the characters that distinguish
/// its VINs from those of other runs: positions 4 to 8 and the first serial number. Seed and run together always yield
/// the same vehicles.
#[derive(Clone, Copy, Debug)]
pub struct Fleet {
    seed: u64,
    run: u64,
}

impl Fleet {
    pub fn new(seed: u64, run: u32) -> Self {
        Self { seed, run: scatter(u64::from(run)) }
    }

    /// Returns the vehicle with this number. Takes no memory, so that a load need not store its vehicles.
    pub fn vehicle(&self, number: u32) -> PlainVehicle {
        let mut random = StdRng::seed_from_u64(self.seed ^ scatter(u64::from(number)));
        let [first_entry, ..] = &CATALOGUE;
        let entry = CATALOGUE.choose(&mut random).unwrap_or(first_entry);
        let (first, last) = entry.years;
        let year = random.random_range(first..=last);
        let unit = entry.odometer_unit();
        let per_year = if unit == "mi" { 2_000..=16_000 } else { 3_000..=25_000 };
        let age = SOLD - year;
        let odometer = age * random.random_range(per_year) + random.random_range(0..1_000);
        let parts = VinParts {
            manufacturer: entry.wmi,
            description: self.description(year),
            year,
            serial: self.serial(number),
        };
        PlainVehicle {
            vin: parts.to_vin(),
            model: entry.model.to_owned(),
            manufacturer: entry.manufacturer.to_owned(),
            year,
            odometer: f64::from(odometer),
            odometer_unit: unit.to_owned(),
        }
    }

    /// Returns the number of the vehicle with this VIN, or `None` when it does not belong to the run.
    pub fn number_of(&self, vin: &str) -> Option<u32> {
        let digit = |alphabet: &[u8], at: usize| {
            let character = vin.as_bytes().get(at)?;
            let index = alphabet.iter().position(|known| known == character)?;
            u64::try_from(index).ok()
        };
        let (plant, first) = (digit(CHARACTERS, 10)?, digit(CHARACTERS, 11)?);
        let rest = (12..17).try_fold(0, |rest, at| Some(rest * 10 + digit(DIGITS, at)?))?;
        let serial = (plant * 33 + first) * 100_000 + rest;
        let number = u32::try_from((serial + SERIALS - self.run % SERIALS) % SERIALS).ok()?;
        (self.vehicle(number).vin == vin).then_some(number)
    }

    /// Returns positions 4 to 8. Position 7 is a letter from the model year 2010 on, and a digit before.
    fn description(&self, year: i32) -> [u8; 5] {
        let mut rest = self.run / SERIALS;
        let mut next = |alphabet: &[u8]| {
            let character = nth(alphabet, rest);
            rest /= alphabet.len() as u64;
            character
        };
        let others = [(); 4].map(|()| next(CHARACTERS));
        let generation = next(if year >= 2010 { LETTERS } else { DIGITS });
        let [fourth, fifth, sixth, eighth] = others;
        [fourth, fifth, sixth, generation, eighth]
    }

    /// Returns positions 11 to 17.
    fn serial(&self, number: u32) -> [u8; 7] {
        let serial = (self.run % SERIALS + u64::from(number)) % SERIALS;
        let (first, rest) = (serial / 100_000, serial % 100_000);
        let digit = |power: u64| nth(DIGITS, rest / power);
        [
            nth(CHARACTERS, first / 33),
            nth(CHARACTERS, first),
            digit(10_000),
            digit(1_000),
            digit(100),
            digit(10),
            digit(1),
        ]
    }
}

/// Permutes numbers (the finalizer of `SplitMix64`), so that similar numbers lead to different random streams.
fn scatter(number: u64) -> u64 {
    let number = number.wrapping_add(0x9e37_79b9_7f4a_7c15);
    let number = (number ^ (number >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let number = (number ^ (number >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    number ^ (number >> 31)
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;

    use proptest::prelude::*;
    use serde_json::json;

    use super::super::vin::check_digit;
    use super::*;
    use crate::vehicle::parse_vehicle;

    #[test]
    fn a_seed_draws_the_same_vehicles_in_every_run_with_other_vins() {
        let without_vin = |run| {
            let fleet = Fleet::new(7, run);
            let all: Vec<_> = (0..100).map(|number| fleet.vehicle(number)).collect();
            let vins: HashSet<_> = all.iter().map(|vehicle| vehicle.vin.clone()).collect();
            let vehicles: Vec<_> =
                all.into_iter().map(|vehicle| PlainVehicle { vin: String::new(), ..vehicle }).collect();
            (vehicles, vins)
        };
        let (first, second) = (without_vin(1), without_vin(2));
        assert_eq!(first.0, second.0);
        assert!(first.1.is_disjoint(&second.1));
        assert_eq!(first, without_vin(1));
        let models = |seed| (0..100).map(move |number| Fleet::new(seed, 1).vehicle(number).model);
        assert!(models(7).ne(models(8)));
    }

    #[test]
    fn the_vins_of_many_runs_differ() {
        let vins = (0..1_000).flat_map(|run| {
            let fleet = Fleet::new(u64::from(run), run);
            (0..20).map(move |number| fleet.vehicle(number).vin)
        });
        assert_eq!(vins.collect::<HashSet<_>>().len(), 20_000);
    }

    #[test]
    fn a_whole_catalogue_is_drawn() {
        let fleet = Fleet::new(1, 1);
        let models: HashSet<_> = (0..2_000).map(|number| fleet.vehicle(number).model).collect();
        let known: HashSet<_> = CATALOGUE.iter().map(|entry| entry.model.to_owned()).collect();
        assert_eq!(models, known);
    }

    #[test]
    fn vins_of_others_are_not_of_the_run() {
        let (fleet, other) = (Fleet::new(1, 1), Fleet::new(1, 2));
        for vin in ["", "vin", "1M8GDM9AXKP042788", "1M8GDM9AXKP04278é", &other.vehicle(3).vin] {
            assert_eq!(fleet.number_of(vin), None, "{vin}");
        }
    }

    proptest! {
        #[test]
        fn every_vehicle_is_plausible_valid_and_recognized(
            seed in any::<u64>(), run in any::<u32>(), number in 0..10_000_000_u32,
        ) {
            let fleet = Fleet::new(seed, run);
            let vehicle = fleet.vehicle(number);
            prop_assert_eq!(fleet.number_of(&vehicle.vin), Some(number));
            prop_assert_eq!(check_digit(vehicle.vin.as_bytes()), vehicle.vin.as_bytes()[8]);
            prop_assert!((1996..=2025).contains(&vehicle.year), "{:?}", vehicle);
            prop_assert!((1_000.0..800_000.0).contains(&vehicle.odometer), "{:?}", vehicle);
            let position_7 = vehicle.vin.as_bytes()[6];
            prop_assert_eq!(position_7.is_ascii_digit(), vehicle.year < 2010);
            prop_assert!(parse_vehicle(&json!(vehicle), 2025).is_ok());
        }
    }
}
