//! A picture as the transformer sees it: grids of the image tokenizer's codes, one in most families.

use crate::{Error, Result};
use std::sync::Arc;

/// Codes in raster order, rows top to bottom, grid after grid from coarse to fine. Not yet vocabulary ids.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Tokens {
    height: u32,
    width: u32,
    /// Height and width of the grids before the last one; none in families that have one grid.
    before: Vec<(u32, u32)>,
    codes: Vec<u32>,
    latent: Beside,
    shown: Beside,
}

/// Numbers that travel beside codes and are no part of what these are: neither compared nor kept in files.
#[derive(Clone, Default)]
pub struct Beside(pub Option<Arc<Vec<f32>>>);

impl PartialEq for Beside {
    fn eq(&self, _: &Self) -> bool {
        true
    }
}

impl Eq for Beside {}

impl std::fmt::Debug for Beside {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str(if self.0.is_some() { "Beside" } else { "-" })
    }
}

impl Tokens {
    /// A grid of `height` rows of `width` codes.
    pub fn new(height: u32, width: u32, codes: Vec<u32>) -> Result<Self> {
        Self::of_grids(&[(height, width)], codes)
    }

    /// Grids (height, width), coarse to fine, and the codes of all of them.
    pub fn of_grids(grids: &[(u32, u32)], codes: Vec<u32>) -> Result<Self> {
        let cells = |&(h, w): &(u32, u32)| u64::from(h) * u64::from(w);
        let expected = grids.iter().map(cells).fold(0, u64::saturating_add);
        let Some((&(height, width), before)) = grids.split_last() else {
            return Err(Error::invalid("tokens", "there is no grid"));
        };
        if grids.iter().any(|g| cells(g) == 0) || expected != codes.len() as u64 {
            let found = codes.len();
            let what = match before.len() {
                0 => format!("a grid of {height} rows by {width}"),
                n => format!("{} grids up to {height} rows by {width}, {expected} cells in all,", n + 1),
            };
            return Err(Error::invalid("tokens", format!("{what} cannot hold {found} codes")));
        }
        Ok(Tokens {
            height,
            width,
            before: before.to_vec(),
            codes,
            latent: Beside::default(),
            shown: Beside::default(),
        })
    }

    /// With what the codes were made of.
    pub fn with_latent(self, latent: Vec<f32>) -> Self {
        Tokens { latent: Beside(Some(Arc::new(latent))), ..self }
    }

    /// With 1 for each code that shows the subject and 0 for each that does not.
    pub fn with_shown(self, shown: Vec<f32>) -> Self {
        Tokens { shown: Beside(Some(Arc::new(shown))), ..self }
    }

    /// Rows of the grid; of several, of the last one.
    pub fn height(&self) -> u32 {
        self.height
    }

    /// Codes in a row of the grid; of several, of the last one.
    pub fn width(&self) -> u32 {
        self.width
    }

    /// Height and width of all grids, coarse to fine.
    pub fn grids(&self) -> Vec<(u32, u32)> {
        let last = (self.height, self.width);
        self.before.iter().copied().chain([last]).collect()
    }

    /// The codes of all grids.
    pub fn codes(&self) -> &[u32] {
        &self.codes
    }

    pub fn into_codes(self) -> Vec<u32> {
        self.codes
    }

    /// What the codes were made of, if that is known: families that learn to mend their own mistakes want more than the codes.
    pub fn latent(&self) -> &Beside {
        &self.latent
    }

    /// Of each code 1 if it shows the subject, 0 if it does not, where a subject was cut out of its picture.
    pub fn shown(&self) -> &Beside {
        &self.shown
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_grid_holds_exactly_its_codes() {
        let tokens = Tokens::new(2, 3, (0..6).collect()).unwrap();
        assert_eq!((tokens.height(), tokens.width(), tokens.codes()[5]), (2, 3, 5));
        assert!(Tokens::new(2, 3, vec![0; 5]).is_err());
        assert!(Tokens::new(0, 3, vec![]).is_err());
        assert!(Tokens::new(u32::MAX, u32::MAX, vec![0; 5]).is_err());
    }

    #[test]
    fn several_grids_hold_their_codes_one_after_the_other() {
        let tokens = Tokens::of_grids(&[(1, 1), (2, 3)], (0..7).collect()).unwrap();
        assert_eq!((tokens.height(), tokens.width(), tokens.grids()), (2, 3, vec![(1, 1), (2, 3)]));
        assert_ne!(tokens, Tokens::new(1, 7, (0..7).collect()).unwrap());
        assert_eq!(tokens, tokens.clone().with_latent(vec![1.0]));
        let error = Tokens::of_grids(&[(1, 1), (2, 3)], vec![0; 6]).unwrap_err().to_string();
        assert!(error.contains("7 cells") && error.contains("6 codes"), "{error}");
        assert!(Tokens::of_grids(&[], vec![]).is_err());
        assert!(Tokens::of_grids(&[(0, 2), (1, 1)], vec![0]).is_err());
    }
}
