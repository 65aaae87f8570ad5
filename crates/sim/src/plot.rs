//! Plots of a run, as SVG: one panel below the other.

use anyhow::Result;
use plotters::coord::Shift;
use plotters::prelude::*;

/// Size of a panel.
const PANEL: (u32, u32) = (960, 400);

/// Room for the title.
const TITLE: u32 = 40;

/// A line of a panel.
#[derive(Debug, Clone, Default)]
pub struct Series {
    /// What it shows.
    pub name: String,
    /// Its points; those of which the second is not a number are left out.
    pub points: Vec<(f64, f64)>,
}

/// Lines with common axes.
#[derive(Debug, Clone)]
pub struct Panel {
    /// What the horizontal axis shows.
    pub across: &'static str,
    /// What the vertical axis shows.
    pub up: &'static str,
    /// The lines.
    pub series: Vec<Series>,
}

type Area<'a> = DrawingArea<SVGBackend<'a>, Shift>;

/// Draws panels under a title.
///
/// # Errors
///
/// If the backend fails.
pub fn draw(title: &str, panels: &[Panel]) -> Result<String> {
    let mut svg = String::new();
    {
        let panels_len = u32::try_from(panels.len())?;
        let size = (PANEL.0, TITLE + PANEL.1 * panels_len.max(1));
        let root = SVGBackend::with_string(&mut svg, size).into_drawing_area();
        root.fill(&WHITE)?;
        let below = root.titled(title, ("sans-serif", 20))?;
        let areas = below.split_evenly((panels.len().max(1), 1));
        for (panel, area) in panels.iter().zip(&areas) {
            draw_panel(panel, area)?;
        }
        root.present()?;
    }
    Ok(svg)
}

fn draw_panel(panel: &Panel, area: &Area<'_>) -> Result<()> {
    let points = || panel.series.iter().flat_map(|series| series.points.iter().copied());
    let x_max = points().map(|(x, _)| x).fold(1.0, f64::max);
    let y_max = points().map(|(_, y)| y).filter(|y| y.is_finite()).fold(0.0, f64::max);
    let y_max = if y_max > 0.0 { y_max * 1.05 } else { 1.0 };
    let mut chart = ChartBuilder::on(area)
        .margin(16)
        .x_label_area_size(40)
        .y_label_area_size(64)
        .build_cartesian_2d(0.0..x_max, 0.0..y_max)?;
    chart
        .configure_mesh()
        .x_desc(panel.across)
        .y_desc(panel.up)
        .light_line_style(WHITE.mix(0.0))
        .draw()?;
    for (at, series) in panel.series.iter().enumerate() {
        let color = Palette99::pick(at).to_rgba();
        let points = series.points.iter().copied().filter(|(_, y)| y.is_finite());
        chart
            .draw_series(LineSeries::new(points, color.stroke_width(2)))?
            .label(series.name.as_str())
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 20, y)], color.stroke_width(2)));
    }
    chart
        .configure_series_labels()
        .background_style(WHITE.mix(0.8))
        .border_style(BLACK.mix(0.3))
        .draw()?;
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_a_number_is_left_out() {
        let points = vec![(0.0, 0.5), (1.0, f64::NAN), (2.0, 1.0)];
        let series = vec![Series { name: "found".into(), points }];
        let panel = Panel { across: "virtual minutes", up: "share", series };
        let svg = draw("lookup", &[panel.clone(), panel]).unwrap();
        assert!(svg.starts_with("<svg") && svg.matches("virtual minutes").count() == 2);
    }
}
