package cache

// Discard drops the value held for key if it is stale by the caller's own
// measure. A load that is under way goes on and is kept: it began later than
// the value. So however many callers find the same value stale at once, the
// next Gets share one load.
func (c *Cache[K, V]) Discard(key K, stale func(V) bool) {
	c.mu.Lock()
	defer c.mu.Unlock()
	if e, ok := c.store.GetIfPresent(key); ok && stale(e.value) {
		c.store.Invalidate(key)
	}
}
