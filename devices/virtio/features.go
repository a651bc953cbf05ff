package virtio

import (
	"fmt"
	"math/bits"
	"strings"
)

// Kinds of devices (VIRTIO 1.2, section 5).
const (
	IDNetwork = 1
	IDBlock   = 2
	IDConsole = 3
	IDEntropy = 4
	IDBalloon = 5
	IDVsock   = 19
)

// Feature bits that every kind of device has (section 6).
const (
	FeatureIndirect = 1 << 28 // VIRTIO_F_INDIRECT_DESC
	FeatureEventIdx = 1 << 29 // VIRTIO_F_EVENT_IDX
	FeatureVersion1 = 1 << 32 // VIRTIO_F_VERSION_1

	// coreFeatures are the core's to offer, to every driver.
	coreFeatures = FeatureIndirect | FeatureEventIdx | FeatureVersion1
)

// Bits of the device status (section 2.1).
const (
	statusAcknowledge = 1
	statusDriver      = 2
	statusDriverOK    = 4
	statusFeaturesOK  = 8
	statusNeedsReset  = 64
	statusFailed      = 128

	statusOfDriver = statusAcknowledge | statusDriver | statusDriverOK | statusFeaturesOK | statusFailed
)

// featureNames are for messages.
var featureNames = map[int]string{28: "INDIRECT_DESC", 29: "EVENT_IDX", 32: "VERSION_1"}

// describeFeatures names a set of feature bits.
func describeFeatures(set uint64) string {
	var names []string
	for ; set != 0; set &= set - 1 {
		bit := bits.TrailingZeros64(set)
		name, ok := featureNames[bit]
		if !ok {
			name = fmt.Sprintf("bit %d", bit)
		}
		names = append(names, name)
	}
	return strings.Join(names, ", ")
}
