package blk

import "fmt"

// Bytes is how large a disk of the image would be now.
func (img *Image) Bytes() (uint64, error) {
	sectors, err := img.sectors()
	if err != nil {
		return 0, fmt.Errorf("disk %s: %w", img.path, err)
	}
	return sectors * sectorSize, nil
}
