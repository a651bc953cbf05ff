package frame

// Where `lab run` leaves things for init, as paths in the lab.
const (
	JobPath = "/lab/job.json"
	// PortModules and HostModules list module files to insert, one a line: those that the port itself needs, and
	// those that make a KVM host.
	PortModules = "/lab/modules.port"
	HostModules = "/lab/modules.host"
	// Port is the virtio-serial port that carries the frames: the second port of the first such device (QEMU
	// keeps the first for a console).
	Port = "/dev/vport0p1"
)

// Job is what init is to do, as JSON at JobPath.
type Job struct {
	Args     []string // the command and its arguments; the command is looked up in PATH
	Env      []string // NAME=VALUE, added to init's own
	Dir      string   // working directory
	Terminal bool     // give the command a terminal; its output then comes as Stdout
}
