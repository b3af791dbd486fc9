//! Files for parsers that open a path.

use std::path::PathBuf;

/// Writes a file of this process in memory.
pub fn file(name: &str, bytes: &[u8]) -> PathBuf {
    let base = if std::path::Path::new("/dev/shm").is_dir() { PathBuf::from("/dev/shm") } else { std::env::temp_dir() };
    let folder = base.join(format!("taper-fuzz-{}", std::process::id()));
    std::fs::create_dir_all(&folder).unwrap();
    let path = folder.join(name);
    std::fs::write(&path, bytes).unwrap();
    path
}

/// A gzip file of stored blocks.
#[allow(dead_code, reason = "not every target has archives")]
pub fn gzip(bytes: &[u8]) -> Vec<u8> {
    let mut file = vec![0x1f, 0x8b, 8, 0, 0, 0, 0, 0, 0, 255];
    let mut blocks: Vec<&[u8]> = bytes.chunks(65_535).collect();
    if blocks.is_empty() {
        blocks.push(&[]);
    }
    for (index, block) in blocks.iter().enumerate() {
        let len = block.len() as u16;
        file.push(u8::from(index + 1 == blocks.len()));
        file.extend_from_slice(&len.to_le_bytes());
        file.extend_from_slice(&(!len).to_le_bytes());
        file.extend_from_slice(block);
    }
    let crc = bytes.iter().fold(!0u32, |crc, byte| {
        (0..8).fold(crc ^ u32::from(*byte), |crc, _| if crc & 1 == 1 { (crc >> 1) ^ 0xedb8_8320 } else { crc >> 1 })
    });
    file.extend_from_slice(&(!crc).to_le_bytes());
    file.extend_from_slice(&(bytes.len() as u32).to_le_bytes());
    file
}
