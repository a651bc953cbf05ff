package blk

// CheckRing says why disks of this process do without an io_uring, if they do.
func CheckRing() error {
	ring, err := newRing(underWay)
	if err != nil {
		return err
	}
	ring.close()
	return nil
}
