// Go clients of the compatibility scenarios: client resp|amqp|kafka. Each prints steps ("> what", then what came back).
package main

import (
	"fmt"
	"os"
	"sort"
	"strings"
)

func step(format string, arguments ...any) { fmt.Printf("> "+format+"\n", arguments...) }

// show prints a value or an error in one line; maps are sorted.
func show(value any, err error) {
	if err != nil {
		fmt.Printf("error: %v\n", err)
		return
	}
	switch typed := value.(type) {
	case map[string]string:
		pairs := make([]string, 0, len(typed))
		for key, item := range typed {
			pairs = append(pairs, key+"="+item)
		}
		sort.Strings(pairs)
		fmt.Println("{" + strings.Join(pairs, " ") + "}")
	default:
		fmt.Printf("%#v\n", value)
	}
}

func check(err error) {
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
}

func main() {
	faces := map[string]func(){"resp": resp, "amqp": amqp, "kafka": kafka}
	if len(os.Args) != 2 || faces[os.Args[1]] == nil {
		fmt.Fprintln(os.Stderr, "usage: client resp|amqp|kafka")
		os.Exit(2)
	}
	faces[os.Args[1]]()
}
