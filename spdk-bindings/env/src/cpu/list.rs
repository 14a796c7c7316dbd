//! The kernel's list format: `0-3,8,10-11`.

/// Far above any kernel's number of CPUs (the largest `NR_CPUS` is 8,192): a bound for what a broken file may ask for.
const MOST: usize = 1 << 16;

/// Reads `0-3,8,10-11`. The empty string is the empty list; `None`: it is no such list.
#[must_use]
pub fn parse_list(text: &str) -> Option<Vec<usize>> {
    let mut cpus = Vec::new();
    for part in text.trim().split(',').filter(|part| !part.is_empty()) {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (first, last) = (first.parse::<usize>().ok()?, last.parse::<usize>().ok()?);
        if first > last || last >= MOST {
            return None;
        }
        cpus.extend(first..=last);
    }
    Some(cpus)
}

/// Writes numbers in the kernel's format, ascending, each once; `none` for the empty list.
#[must_use]
pub fn format_list(numbers: impl IntoIterator<Item = usize>) -> String {
    let mut numbers: Vec<usize> = numbers.into_iter().collect();
    numbers.sort_unstable();
    numbers.dedup();
    let mut runs: Vec<(usize, usize)> = Vec::new();
    for number in numbers {
        match runs.last_mut() {
            Some((_, last)) if *last + 1 == number => *last = number,
            _ => runs.push((number, number)),
        }
    }
    if runs.is_empty() {
        return "none".to_owned();
    }
    let texts = runs.into_iter().map(|(first, last)| {
        if first == last {
            first.to_string()
        } else {
            format!("{first}-{last}")
        }
    });
    texts.collect::<Vec<_>>().join(",")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_of_the_kernel() {
        assert_eq!(
            parse_list("0-3,8,10-11\n"),
            Some(vec![0, 1, 2, 3, 8, 10, 11])
        );
        assert_eq!(parse_list(""), Some(vec![]));
        for bad in ["a", "3-1", "1-", "-1", "0-99999999999", "1,,x"] {
            assert_eq!(parse_list(bad), None, "{bad}");
        }
    }

    #[test]
    fn lists_are_written_as_the_kernel_writes_them() {
        assert_eq!(format_list([11, 0, 1, 2, 8, 10, 8]), "0-2,8,10-11");
        assert_eq!(format_list([]), "none");
    }
}
