//! `darkroom sheet`: the thumbnails of a range of images in one file.

use std::path::Path;

use darkroom_core::{error::UserError, thumbnail::check_tile};
use darkroom_proto::{json, v1};
use darkroom_runtime::terminal::shown_path;
use serde_json::json;

use crate::{
    args::{Place, SheetArgs, TILE},
    failure::Result,
    farm, output,
    pictures::{Folder, Taken},
};

/// Downloads a sheet and says what it lacks.
pub(crate) async fn get(place: &Place, args: SheetArgs, as_json: bool) -> Result<()> {
    if args.tile != 0 {
        check_tile(args.tile, TILE)?;
    }
    let name = args.out.file_name().and_then(|name| name.to_str()).ok_or_else(|| {
        let message = format!("{} is no name of a file", shown_path(&args.out));
        UserError::invalid("out", message + "; accepted: a file for the sheet, like sheet.png")
    })?;
    let parent = args.out.parent().filter(|parent| !parent.as_os_str().is_empty());
    let taken = if args.overwrite { Taken::Overwrite } else { Taken::Refuse };
    let client = farm::find(place)?;
    let folder = Folder::open(parent.unwrap_or(Path::new(".")), taken)?;
    let request = v1::FetchSheetRequest {
        job_id: args.job,
        first_index: args.from,
        count: args.count,
        tile: args.tile,
        columns: args.columns,
        stage: args.stage.unwrap_or_default(),
    };
    let (sheet, png) = client.sheet(&request).await?;
    folder.write_named(name, &png)?;
    if as_json {
        let document = json!({"sheet": json::Sheet::from(&sheet)});
        return output::json(&output::with_path(document, "path", &args.out));
    }
    output::line(&shown_path(&args.out))?;
    for (state, what) in [
        (v1::SheetTile::Empty, "have no picture yet"),
        (
            v1::SheetTile::Later,
            "have a picture that is not in the sheet yet: run the command again with --overwrite",
        ),
        (v1::SheetTile::Lost, "had a picture that is gone from the farm's storage"),
    ] {
        let count = sheet.tiles.iter().filter(|tile| **tile == i32::from(state)).count();
        if count > 0 {
            output::tell(&format!("note: {count} of {} images {what}", sheet.tiles.len()));
        }
    }
    Ok(())
}
