// Package feature runs the checks of a client and prints one line for each: name, ok | unsupported | failed, detail.
package feature

import (
	"fmt"
	"os"
	"reflect"
	"strings"
	"time"
)

const timeout = 120 * time.Second

// Bootstrap is the address of the broker.
var Bootstrap = os.Args[1]

// Prefix starts the names of topics and groups.
var Prefix = os.Args[2]

// Check is a named check. Without Run, the client lacks the API.
type Check struct {
	Name string
	Run  func()
}

// Main runs the checks one after the other.
func Main(checks []Check) {
	for _, check := range checks {
		status, detail := outcome(check.Run)
		fmt.Printf("%s\t%s\t%s\n", check.Name, status, strings.Join(strings.Fields(detail), " "))
	}
}

func outcome(run func()) (string, string) {
	if run == nil {
		return "unsupported", ""
	}
	failure := make(chan any, 1)
	go func() {
		defer func() { failure <- recover() }()
		run()
	}()
	select {
	case failed := <-failure:
		if failed == nil {
			return "ok", ""
		}
		return "failed", fmt.Sprint(failed)
	case <-time.After(timeout):
		return "failed", fmt.Sprintf("no result within %s", timeout)
	}
}

// Must ends the check when there is an error.
func Must(err error) {
	if err != nil {
		panic(err)
	}
}

// Got returns the value, or ends the check.
func Got[T any](value T, err error) T {
	Must(err)
	return value
}

// Expect ends the check when the values differ.
func Expect(expected, actual any) {
	if !reflect.DeepEqual(expected, actual) {
		panic(fmt.Sprintf("expected %v, got %v", expected, actual))
	}
}

// Until waits until the condition is true.
func Until(condition func() bool) {
	for deadline := time.Now().Add(timeout); !condition(); time.Sleep(20 * time.Millisecond) {
		if time.Now().After(deadline) {
			panic("the condition did not become true")
		}
	}
}
