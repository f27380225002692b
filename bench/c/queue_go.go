// queue_go.go - a Go channel under the load of queue_load.h, goroutines in place of threads.
//
//	queue_go PRODUCERS CONSUMERS MILLISECONDS
package main

import (
	"encoding/json"
	"fmt"
	"os"
	"strconv"
	"sync"
	"sync/atomic"
	"time"
)

const capacity = 1024
const mostItems = 8000000
const stop = ^uintptr(0)

type side struct{ count, sum uint64 }

func add(sides []side) (all side) {
	for _, s := range sides {
		all.count += s.count
		all.sum += s.sum
	}
	return
}

func run(producers, consumers int, duration time.Duration) (float64, error) {
	queue := make(chan uintptr, capacity)
	in, out := make([]side, producers), make([]side, consumers)
	var timeIsUp atomic.Bool
	var producing, consuming sync.WaitGroup
	start := make(chan struct{})
	most := uint64(mostItems / producers)

	producing.Add(producers)
	for i := range in {
		go func(me *side) {
			defer producing.Done()
			<-start
			n := uint64(0)
			for n < most && !timeIsUp.Load() {
				n++
				queue <- uintptr(n)
			}
			*me = side{n, n * (n + 1) / 2}
		}(&in[i])
	}
	consuming.Add(consumers)
	for i := range out {
		go func(me *side) {
			defer consuming.Done()
			<-start
			var mine side
			for number := <-queue; number != stop; number = <-queue {
				mine.count++
				mine.sum += uint64(number)
			}
			*me = mine
		}(&out[i])
	}

	began := time.Now()
	close(start)
	allPut := make(chan struct{})
	go func() {
		producing.Wait()
		close(allPut)
	}()
	select {
	case <-allPut:
	case <-time.After(duration):
		timeIsUp.Store(true)
		<-allPut
	}
	for i := 0; i < consumers; i++ {
		queue <- stop
	}
	consuming.Wait()
	took := time.Since(began)
	if add(in) != add(out) {
		return 0, fmt.Errorf("put %v and got %v", add(in), add(out))
	}
	return float64(add(out).count) / took.Seconds() / 1e6, nil
}

func main() {
	var numbers [3]int
	for i := range numbers {
		if len(os.Args) != 4 {
			fmt.Fprintln(os.Stderr, "usage: queue_go PRODUCERS CONSUMERS MILLISECONDS")
			os.Exit(2)
		}
		n, err := strconv.Atoi(os.Args[i+1])
		if err != nil || n < 1 {
			fmt.Fprintf(os.Stderr, "%q is not a whole number above 0\n", os.Args[i+1])
			os.Exit(2)
		}
		numbers[i] = n
	}
	value, err := run(numbers[0], numbers[1], time.Duration(numbers[2])*time.Millisecond)
	if err != nil {
		fmt.Fprintln(os.Stderr, err)
		os.Exit(1)
	}
	json.NewEncoder(os.Stdout).Encode(map[string]float64{"value": value})
}
