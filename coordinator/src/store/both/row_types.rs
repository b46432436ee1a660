//! Rows that many statements read.

use darkroom_core::{
    image_state::{ImageProgress, ImageState},
    text_state::{TextProgress, TextState},
};

use super::{
    Error,
    rows::{Int, Places, Small, number, parse, places},
};
use crate::store::row::row;

row! {
    /// An image's progress as its columns.
    #[derive(Clone, Debug)]
    pub(in super::super) struct ProgressRow {
        pub(in super::super) job: i64,
        pub(in super::super) idx: i64,
        pub(in super::super) prompt: i64,
        /// The number of its own settings; `None` if it uses its job's.
        pub(in super::super) variant: Option<Int>,
        pub(in super::super) state: String,
        pub(in super::super) stage: Small,
        pub(in super::super) generation: Int,
        pub(in super::super) dispatch: i64,
        pub(in super::super) failures: Int,
        pub(in super::super) places: Places,
        pub(in super::super) suspect: bool,
    }
}

impl ProgressRow {
    pub(in super::super) fn progress(&self) -> Result<ImageProgress, Error> {
        Ok(ImageProgress {
            state: parse::<ImageState>(&self.state)?,
            stage: number(self.stage)?,
            generation: number(self.generation)?,
            dispatch: number(self.dispatch)?,
            failures: number(self.failures)?,
            places: places(&self.places)?,
            suspect: self.suspect,
        })
    }
}

row! {
    /// A text's progress as its columns.
    #[derive(Clone, Debug)]
    pub(in super::super) struct TextRow {
        pub(in super::super) id: i64,
        state: String,
        dispatch: i64,
        failures: Int,
        places: Places,
        suspect: bool,
    }
}

impl TextRow {
    pub(in super::super) fn progress(&self) -> Result<TextProgress, Error> {
        Ok(TextProgress {
            state: parse::<TextState>(&self.state)?,
            dispatch: number(self.dispatch)?,
            failures: number(self.failures)?,
            places: places(&self.places)?,
            suspect: self.suspect,
        })
    }
}
