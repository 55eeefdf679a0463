//! Lists vehicles that exist.

/// A model under one world manufacturer identifier (WMI).
#[derive(Clone, Copy, Debug)]
pub struct CatalogueEntry {
    pub manufacturer: &'static str,
    pub model: &'static str,
    /// The first three characters of the VIN. The first of them is the region.
    pub wmi: &'static str,
    /// The first and the last model year to draw. The last is fixed, so that a seed means the same vehicles next year.
    pub years: (i32, i32),
}

impl CatalogueEntry {
    /// Returns the unit of the odometer: miles for vehicles that were built for North America.
    pub fn odometer_unit(&self) -> &'static str {
        if self.wmi.starts_with(['1', '2', '3', '4', '5', '7']) { "mi" } else { "km" }
    }
}

const fn entry(
    wmi: &'static str,
    manufacturer: &'static str,
    model: &'static str,
    first: i32,
    last: i32,
) -> CatalogueEntry {
    CatalogueEntry { manufacturer, model, wmi, years: (first, last) }
}

pub static CATALOGUE: [CatalogueEntry; 55] = [
    entry("WAU", "Audi", "A4", 1996, 2024),
    entry("WAU", "Audi", "A6", 1996, 2025),
    entry("WA1", "Audi", "Q5", 2009, 2025),
    entry("WBA", "BMW", "3 Series", 1996, 2025),
    entry("WBA", "BMW", "5 Series", 1996, 2025),
    entry("5UX", "BMW", "X5", 2000, 2025),
    entry("1G1", "Chevrolet", "Malibu", 1997, 2024),
    entry("1GC", "Chevrolet", "Silverado 1500", 1999, 2025),
    entry("1GN", "Chevrolet", "Tahoe", 1996, 2025),
    entry("VF7", "Citroën", "C3", 2002, 2025),
    entry("UU1", "Dacia", "Duster", 2010, 2025),
    entry("UU1", "Dacia", "Sandero", 2008, 2025),
    entry("ZFA", "Fiat", "500", 2007, 2024),
    entry("ZFA", "Fiat", "Panda", 2003, 2025),
    entry("1FM", "Ford", "Explorer", 1996, 2025),
    entry("1FT", "Ford", "F-150", 1996, 2025),
    entry("WF0", "Ford", "Focus", 1999, 2025),
    entry("1FA", "Ford", "Mustang", 1996, 2025),
    entry("1HG", "Honda", "Accord", 1996, 2025),
    entry("2HG", "Honda", "Civic", 1996, 2025),
    entry("5J6", "Honda", "CR-V", 2007, 2025),
    entry("KMH", "Hyundai", "Elantra", 1996, 2025),
    entry("KM8", "Hyundai", "Tucson", 2005, 2025),
    entry("1C4", "Jeep", "Grand Cherokee", 2012, 2025),
    entry("1C4", "Jeep", "Wrangler", 2012, 2025),
    entry("KND", "Kia", "Sportage", 1996, 2025),
    entry("SAL", "Land Rover", "Range Rover", 1996, 2025),
    entry("JM3", "Mazda", "CX-5", 2013, 2025),
    entry("JM1", "Mazda", "MX-5", 1996, 2025),
    entry("WDD", "Mercedes-Benz", "C-Class", 2005, 2020),
    entry("W1K", "Mercedes-Benz", "E-Class", 2020, 2025),
    entry("WMW", "MINI", "Cooper", 2002, 2025),
    entry("1N4", "Nissan", "Altima", 1996, 2025),
    entry("SJN", "Nissan", "Qashqai", 2007, 2025),
    entry("VF3", "Peugeot", "208", 2012, 2025),
    entry("VF3", "Peugeot", "308", 2007, 2025),
    entry("WP0", "Porsche", "911", 1996, 2025),
    entry("WP1", "Porsche", "Cayenne", 2003, 2025),
    entry("VF1", "Renault", "Clio", 1996, 2025),
    entry("VF1", "Renault", "Mégane", 1996, 2024),
    entry("VSS", "SEAT", "Ibiza", 1996, 2025),
    entry("VSS", "SEAT", "León", 1999, 2025),
    entry("TMB", "Škoda", "Fabia", 2000, 2025),
    entry("TMB", "Škoda", "Octavia", 1997, 2025),
    entry("JF2", "Subaru", "Forester", 1998, 2025),
    entry("5YJ", "Tesla", "Model 3", 2017, 2025),
    entry("5YJ", "Tesla", "Model S", 2012, 2025),
    entry("4T1", "Toyota", "Camry", 1996, 2025),
    entry("2T1", "Toyota", "Corolla", 1996, 2019),
    entry("JTM", "Toyota", "RAV4", 2006, 2025),
    entry("WVW", "Volkswagen", "Golf", 1996, 2025),
    entry("WVW", "Volkswagen", "Passat", 1996, 2023),
    entry("WVG", "Volkswagen", "Tiguan", 2008, 2025),
    entry("YV1", "Volvo", "V60", 2011, 2025),
    entry("YV4", "Volvo", "XC60", 2009, 2025),
];
