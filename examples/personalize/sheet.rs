//! A contact sheet: rows of pictures with captions.

use font8x8::UnicodeFonts;
use sitter::picture::Picture;

/// Side of a tile's picture area, gap between tiles, height of a line of text; pixels.
const TILE: u32 = 192;
const GAP: u32 = 12;
const LINE: u32 = 10;
const CAPTION_LINES: u32 = 3;
const INK: [u8; 3] = [40, 40, 48];

pub struct Sheet {
    columns: u32,
    rows: Vec<(String, Vec<(Picture, String)>)>,
}

impl Sheet {
    pub fn new(columns: u32) -> Self {
        Sheet { columns, rows: vec![] }
    }

    /// A row under a heading; more tiles than columns wrap.
    pub fn row(&mut self, heading: impl Into<String>, tiles: Vec<(Picture, String)>) {
        self.rows.push((heading.into(), tiles));
    }

    pub fn draw(&self) -> sitter::Result<Picture> {
        let pitch = TILE + CAPTION_LINES * LINE + GAP;
        let lines = |tiles: usize| (tiles as u32).div_ceil(self.columns).max(1);
        let width = GAP + self.columns * (TILE + GAP);
        let height = GAP + self.rows.iter().map(|(_, t)| 2 * LINE + lines(t.len()) * pitch).sum::<u32>();
        let mut page = Page { width, rgb: vec![250; (width * height * 3) as usize] };
        let mut top = GAP;
        for (heading, tiles) in &self.rows {
            page.text(heading, GAP, top);
            top += 2 * LINE;
            for (i, (picture, caption)) in tiles.iter().enumerate() {
                let left = GAP + i as u32 % self.columns * (TILE + GAP);
                let top = top + i as u32 / self.columns * pitch;
                page.picture(picture, left, top);
                for (n, line) in wrap(caption, TILE as usize / 8).iter().take(CAPTION_LINES as usize).enumerate() {
                    page.text(line, left, top + TILE + 4 + n as u32 * LINE);
                }
            }
            top += lines(tiles.len()) * pitch;
        }
        Picture::new(width, height, page.rgb)
    }
}

struct Page {
    width: u32,
    rgb: Vec<u8>,
}

impl Page {
    fn set(&mut self, x: u32, y: u32, colour: [u8; 3]) {
        let at = ((y * self.width + x) * 3) as usize;
        if x < self.width && at + 3 <= self.rgb.len() {
            self.rgb[at..at + 3].copy_from_slice(&colour);
        }
    }

    fn text(&mut self, text: &str, left: u32, top: u32) {
        for (i, c) in text.chars().enumerate() {
            let glyph = font8x8::BASIC_FONTS.get(c).unwrap_or_default();
            for (y, bits) in glyph.iter().enumerate() {
                for x in (0..8).filter(|x| bits >> x & 1 == 1) {
                    self.set(left + i as u32 * 8 + x, top + y as u32, INK);
                }
            }
        }
    }

    /// Fits the picture into a tile, nearest pixel, so that small pictures show what they are.
    fn picture(&mut self, picture: &Picture, left: u32, top: u32) {
        let longest = picture.width().max(picture.height());
        let (w, h) = (picture.width() * TILE / longest, picture.height() * TILE / longest);
        for y in 0..h {
            for x in 0..w {
                let at = ((y * picture.height() / h * picture.width() + x * picture.width() / w) * 3) as usize;
                let pixel = &picture.rgb()[at..at + 3];
                self.set(left + (TILE - w) / 2 + x, top + (TILE - h) / 2 + y, [pixel[0], pixel[1], pixel[2]]);
            }
        }
    }
}

/// Breaks a text into lines of at most `width` characters, at blanks where there are any.
fn wrap(text: &str, width: usize) -> Vec<String> {
    let mut lines = vec![String::new()];
    for word in text.split_whitespace() {
        let last = lines.last_mut().expect("never empty");
        if last.is_empty() {
            last.push_str(word);
        } else if last.chars().count() + 1 + word.chars().count() <= width {
            last.push(' ');
            last.push_str(word);
        } else {
            lines.push(word.to_string());
        }
    }
    lines
}
