package client_test

import (
	"context"
	"errors"
	"fmt"
	"log"
	"log/slog"
	"os"
	"time"

	"microvm/vmm"
	"microvm/vmm/client"
)

// A program that looks at a VM by its name, and pauses it.
func Example() {
	defer receive("web")()

	ctx, cancel := context.WithTimeout(context.Background(), 5*time.Second)
	defer cancel()
	c, err := client.Dial("web")
	if err != nil {
		log.Fatal(err) // vmm.ErrNoSuchVM, if there is none
	}
	info, err := c.Info(ctx)
	if err != nil {
		log.Fatal(err)
	}
	fmt.Printf("%s is %v\n", info.Name, info.State)

	err = c.Pause(ctx)
	var refused *vmm.APIError
	if errors.As(err, &refused) {
		fmt.Printf("%s: %s\n", refused.Code, refused.Message)
	}
	// Output:
	// web is incoming
	// wrong_state: VM web has not arrived yet: it waits for a migration
}

// receive stands for a process that waits for a VM: microvm receive --name web.
func receive(name string) (end func()) {
	root, err := os.MkdirTemp("", "microvm")
	if err != nil {
		log.Fatal(err)
	}
	os.Setenv(vmm.StateDirEnv, root)
	dir, err := vmm.OpenStateDir(name)
	if err != nil {
		log.Fatal(err)
	}
	server, err := vmm.Listen(dir, nil, slog.New(slog.DiscardHandler))
	if err != nil {
		log.Fatal(err)
	}
	return func() {
		if err := errors.Join(server.Close(vmm.ExitStatus{}), os.RemoveAll(root), os.Unsetenv(vmm.StateDirEnv)); err != nil {
			log.Fatal(err)
		}
	}
}
