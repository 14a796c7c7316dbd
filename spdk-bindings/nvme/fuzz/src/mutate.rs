//! Changing bytes by chance that repeats.

/// Numbers from a seed (SplitMix64).
#[derive(Debug, Clone)]
pub struct Rng(u64);

impl Rng {
    /// From a seed.
    #[must_use]
    pub fn new(seed: u64) -> Rng {
        Rng(seed)
    }

    /// The next number.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.0;
        z = (z ^ z >> 30).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ z >> 27).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ z >> 31
    }

    /// One below `bound`, which is not 0.
    pub fn below(&mut self, bound: usize) -> usize {
        (self.draw() % bound as u64) as usize
    }

    fn byte(&mut self) -> u8 {
        self.draw() as u8
    }
}

/// Longest input: what one life of a controller asks, and then some.
const LONGEST: usize = 2048;

/// Bytes that mean something to the device.
const TELLING: [u8; 12] = [
    0, 0xa0, 0xaf, 0xb0, 0xc0, 0xd0, 0xd8, 0xe0, 0xe8, 0xf0, 0xfa, 0xff,
];

/// A few changes: bytes set, inserted, cut out, moved, taken from another input.
#[must_use]
pub fn mutate(rng: &mut Rng, input: &[u8], other: &[u8]) -> Vec<u8> {
    let mut bytes = input.to_vec();
    for _ in 0..=rng.below(4) {
        if bytes.is_empty() {
            bytes.push(rng.byte());
        }
        let at = rng.below(bytes.len());
        match rng.below(8) {
            0 => bytes[at] = rng.byte(),
            1 => bytes[at] = TELLING[rng.below(TELLING.len())],
            2 => bytes[at] ^= 1 << rng.below(8),
            3 => bytes.insert(at, TELLING[rng.below(TELLING.len())]),
            4 => {
                let few = (0..=rng.below(24)).map(|_| rng.byte());
                let few: Vec<u8> = few.collect();
                bytes.splice(at..at, few);
            }
            5 => bytes.truncate(at),
            6 => {
                let end = (at + rng.below(32)).min(bytes.len());
                bytes.drain(at..end);
            }
            _ if !other.is_empty() => {
                let from = rng.below(other.len());
                bytes.truncate(at);
                bytes.extend_from_slice(&other[from..]);
            }
            // Honest for a while.
            _ => drop(bytes.splice(at..at, core::iter::repeat_n(0, 16))),
        }
    }
    bytes.truncate(LONGEST);
    bytes
}
