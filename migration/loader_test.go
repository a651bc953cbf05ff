package migration

import "testing"

// Memory that a device's Load still reads or writes must not be taken away.
func TestReceiveDoesNotReturnWhileADeviceLoads(t *testing.T) {
	loading, release := make(chan struct{}), make(chan struct{})
	r := receive(t, &ledger{}, func(m *testMachine) {
		m.device.touch = func() error {
			close(loading)
			<-release
			return nil
		}
	})
	s := newRawSource(t, r.addr)
	s.advised()
	s.send(packageOf(listenMessage, stateMessage))
	<-loading
	s.main.Close()
	r.reach(PhaseFailed)
	select {
	case <-r.ended:
		t.Error("Receive returned before the device was done")
	default:
	}
	close(release)
	r.wait()
	if p := r.dest.Phase(); p != PhaseFailed {
		t.Errorf("phase %s", p)
	}
}
